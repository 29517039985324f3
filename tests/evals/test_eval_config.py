"""The suites that ship with t0train against the reference's counts; suite files; datasets that are not available."""

from __future__ import annotations

from pathlib import Path

import pytest

from t0train.config import load_suite
from t0train.core.errors import UserError
from t0train.evals.eval_config import EvalConfig, resolve_suite, split_missing
from t0train.tasks import load_catalogue

HELD_OUT = {
    "super_glue/rte": 10,
    "super_glue/cb": 15,
    "anli/r1": 15,
    "anli/r2": 15,
    "anli/r3": 15,
    "super_glue/wsc.fixed": 10,
    "winogrande/winogrande_xl": 5,
    "super_glue/copa": 12,
    "hellaswag": 4,
    "story_cloze/2016": 5,
    "super_glue/wic": 10,
}
"""Prompts of each dataset in the original's evaluation (evaluation/template_list.py of bigscience-workshop/t-zero)."""
SELECTION = {
    "cosmos_qa": 10,
    "quail": 10,
    "rotten_tomatoes": 10,
    "quartz": 8,
    "yelp_review_full": 7,
    "ag_news": 7,
    "cos_e/v1.11": 6,
    "glue/mrpc": 5,
    "glue/qqp": 5,
    "wiki_qa": 5,
    "qasc": 5,
    "social_i_qa": 5,
    "sciq": 4,
    "wiqa": 2,
}
"""Tasks of each dataset in the original's mixture t0_train_score_eval."""


@pytest.mark.parametrize(("name", "counts", "total"), [("t0_heldout", HELD_OUT, 116), ("t0_selection", SELECTION, 89)])
def test_prompt_counts_are_the_originals(
    name: str, counts: dict[str, int], total: int, promptsource_folder: Path
) -> None:
    entries = resolve_suite(EvalConfig(load_suite(name)))
    assert {entry.dataset.key: len(entry.tasks) for entry in entries} == counts
    tasks = {task.name for entry in entries for task in entry.tasks}
    assert len(tasks) == sum(counts.values()) == total
    for entry in entries:
        assert all(task.template.original_task and task.template.answer_choices for task in entry.tasks)


def test_selection_never_touches_held_out_data() -> None:
    catalogue = load_catalogue()
    assert all(catalogue[task.dataset].held_out == "BASE" for task in load_suite("t0_heldout").tasks)
    for task in load_suite("t0_selection").tasks:
        dataset = catalogue[task.dataset]
        assert (dataset.stage, dataset.held_out, task.split) == ("BASE", "", "validation")


def test_big_bench_has_the_cards_fourteen_tasks() -> None:
    tasks = load_suite("bigbench14").tasks
    assert {task.kind for task in tasks} == {"bigbench"}
    assert len({task.dataset for task in tasks}) == 14


def test_bias_sets_are_scored_as_on_the_card(promptsource_folder: Path) -> None:
    suite = load_suite("bias")
    entries = {entry.dataset.key: entry for entry in resolve_suite(EvalConfig(suite))}
    kinds = {key: (entry.spec.kind, len(entry.tasks)) for key, entry in entries.items()}
    generated = {f"wino_bias/type{k}_{side}": ("generate", 7) for k in (1, 2) for side in ("pro", "anti")}
    assert kinds == {"crows_pairs": ("rank", 6), "super_glue/axg": ("rank", 10), **generated}
    assert all(entry.spec.caveat for entry in entries.values())
    assert [(one.of[-3:], one.minus[-4:]) for one in suite.differences] == [("pro", "anti")] * 2


def test_generation_suite_asks_for_prompts_without_choices(promptsource_folder: Path) -> None:
    for entry in resolve_suite(EvalConfig(load_suite("generation"))):
        assert entry.tasks
        assert not any(task.template.answer_choices for task in entry.tasks)


def test_unavailable_datasets_are_listed(real_data: Path, promptsource_folder: Path) -> None:
    entries = resolve_suite(EvalConfig(load_suite("t0_heldout")))
    available, missing = split_missing(entries, str(real_data))
    assert [entry.dataset.key for entry in available] == [
        "super_glue/rte",
        "super_glue/wsc.fixed",
        "super_glue/copa",
        "hellaswag",
    ]
    assert {one.dataset for one in missing} == set(HELD_OUT) - {entry.dataset.key for entry in available}
    [story] = [one for one in missing if one.dataset == "story_cloze/2016"]
    assert "rocstories" in story.reason  # where it is to be had
    selection = resolve_suite(EvalConfig(load_suite("t0_selection")))
    reasons = {one.dataset: one.reason for one in split_missing(selection, str(real_data))[1]}
    assert "no split 'validation'" in reasons["ag_news"]


RANK = "{dataset: films"
GENERATE = "{dataset: films, kind: generate"


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        (RANK + ", metrics: [rouge1]}", "the only further metric is f1"),
        (RANK + ", references: x}", "references has no meaning with kind: rank"),
        (GENERATE + ", metrics: [rouge1], normalise: mean_chars}", "normalise has no meaning with kind: generate"),
        (RANK + ", normalise: mean}", "normalise"),
        (GENERATE + "}", "kind: generate needs metrics"),
        (GENERATE + ", metrics: [bleu, rouge1]}", "the first must score single answers"),
        (GENERATE + ", metrics: [f1]}", "compared by token_f1"),
        ("{dataset: films, kind: bigbench, split: test}", "split has no meaning with kind: bigbench"),
        ("{dataset: ../other, kind: bigbench}", "'../other' is no task of BIG-bench"),
        (RANK + ", metrics: [f2]}", "metrics.0"),
        (RANK + ", kind: ranked}", "kind"),
    ],
)
def test_keys_that_make_no_sense_are_refused(tmp_path: Path, entry: str, complaint: str) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(f"name: mine\ntasks:\n  - {entry}\n")
    with pytest.raises(UserError) as caught:
        load_suite(str(path))
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name: mine\n", "a suite needs tasks or probes"),
        (
            "name: mine\ntasks: [{dataset: a, prompts: [x]}, {dataset: b}, {dataset: a, prompts: [y]}]\n",
            "dataset: a, split: validation, kind: rank is listed 2 times",
        ),
        (
            "name: mine\ntasks: [{dataset: a, kind: bigbench}, {dataset: a, kind: bigbench, limit: 3}]\n",
            "dataset: a, kind: bigbench is listed 2 times",
        ),
        ("name: ../../evil\nprobes: [{name: a, input: b}]\n", "found '../../evil'"),
        ("name: .mine\nprobes: [{name: a, input: b}]\n", "found '.mine'"),
        ("name: mine-untrained\nprobes: [{name: a, input: b}]\n", "'mine-untrained' ends in '-untrained'"),
        (
            "name: mine\ntasks: [{dataset: a}]\ndifferences: [{name: d, of: a, minus: b}]\n",
            "'b' is listed 0 times in the suite",
        ),
    ],
)
def test_a_suite_without_work_or_with_unknown_differences_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_suite(str(path))
    assert complaint in str(caught.value)


def test_two_templates_of_one_task_name_are_refused(tmp_path: Path) -> None:
    """Their results would go by one name; the entry may still name one of them."""
    (tmp_path / "pets").mkdir()
    entries = ", ".join(
        f"{uid}: {{name: '{name}', jinja: 'x ||| a', answer_choices: a ||| b}}"
        for uid, name in (("u", "a?"), ("v", "a!"))
    )
    (tmp_path / "pets" / "templates.yaml").write_text(f"templates: {{{entries}}}")
    (tmp_path / "catalogue.csv").write_text("name\npets\n")
    catalogue = load_catalogue(tmp_path / "catalogue.csv")
    for prompts, fails in (("all", True), ("['a?']", False), ("['a?', 'a!']", True)):
        suite = tmp_path / "suite.yaml"
        suite.write_text(f"name: s\ntasks:\n- {{dataset: pets, split: test, kind: rank, prompts: {prompts}}}\n")
        config = EvalConfig(load_suite(str(suite)), catalogue=catalogue, templates=[tmp_path])
        if fails:
            with pytest.raises(UserError, match="same task name 'pets_a_'"):
                resolve_suite(config)
        else:
            assert len(resolve_suite(config)[0].tasks) == 1
