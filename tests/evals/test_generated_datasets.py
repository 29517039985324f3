"""Generated datasets: what a model that writes known answers gets for them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import corpus_bleu

from t0train.config import SuiteConfig, load_suite
from t0train.core.errors import UserError
from t0train.data import Vocabulary, load_vocabulary
from t0train.evals import EvalConfig, EvalModel, Generator, Results, check_folder, evaluate_model
from t0train.evals.datasets import generation_prompts
from t0train.evals.eval_config import resolve_suite
from t0train.prompts import load_templates
from t0train.results import EvaluatedModel
from t0train.tasks import load_catalogue, open_table
from tests.evals.conftest import small_model
from tests.evals.films import RECORDS, films_config, write_films

WRITTEN = {"kind": "generate", "metrics": ["rougeL", "bleu", "exact_match"]}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_films(tmp_path_factory.mktemp("films"))


def with_writer(monkeypatch: pytest.MonkeyPatch, write: Callable[[str], str]) -> None:
    """Let `write(prompt)` take the model's place."""

    def generate(self: Generator, prompts: Sequence[str], *_: Any, **__: Any) -> list[str]:
        return [write(prompt) for prompt in prompts]

    monkeypatch.setattr(Generator, "generate", generate)


def run(
    films: Path, vocabulary: Vocabulary, suite: dict[str, Any], facts: EvaluatedModel | None = None, **options: Any
) -> Results:
    model = EvalModel(small_model(vocabulary.size), vocabulary, facts or EvaluatedModel())
    config = films_config(films, SuiteConfig.model_validate({"name": "films", **suite}))
    return evaluate_model(model, replace(config, **options))


def test_metrics_are_those_of_the_libraries_on_the_rendered_records(
    films: Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The template prints a colour and wants the text; a model that writes one fixed text is right now and then."""
    with_writer(monkeypatch, lambda prompt: "the film was very good")
    results = run(films, vocabulary, {"tasks": [{"dataset": "films", **WRITTEN}]})
    [task] = results.generated
    [prompt] = task.prompts
    outputs, targets = ["the film was very good"] * len(RECORDS), [record["text"] for record in RECORDS]
    scorer = RougeScorer(["rougeL"])
    values = [scorer.score(right, out)["rougeL"].fmeasure for right, out in zip(targets, outputs, strict=True)]
    assert prompt.metrics["rougeL"] == pytest.approx(np.mean(values)) == prompt.score
    assert prompt.metrics["bleu"] == pytest.approx(corpus_bleu(outputs, [targets]).score / 100)
    assert 0 < prompt.metrics["exact_match"] == np.mean([target == outputs[0] for target in targets]) < 1
    constant, count = Counter(targets).most_common(1)[0]
    assert prompt.constant_answer == constant
    rouge = [scorer.score(right, constant)["rougeL"].fmeasure for right in targets]
    assert prompt.metric_baselines == {
        "rougeL": {"constant": pytest.approx(np.mean(rouge))},
        "bleu": {"constant": pytest.approx(corpus_bleu([constant] * len(RECORDS), [targets]).score / 100)},
        "exact_match": {"constant": pytest.approx(count / len(RECORDS))},
    }
    assert task.metric_baselines == prompt.metric_baselines
    assert (task.metric, prompt.name, prompt.records) == ("rougeL", "say it", len(RECORDS))
    assert prompt.interval[0] < prompt.score < prompt.interval[1]
    assert task.mean == task.median == prompt.score
    assert set(task.left_out) == {"colour", "good or bad", "long ones only"}
    lines = results.generations.to_pylist()
    assert [line["record"] for line in lines] == list(range(len(RECORDS)))
    assert [line["references"] for line in lines] == [[target] for target in targets]
    assert [line["score"] for line in lines] == pytest.approx(values)


def test_files_and_probes(films: Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_writer(monkeypatch, str.upper)
    tasks = [{"dataset": "films", "caveat": "toy"}, {"dataset": "films", "split": "train", **WRITTEN}]
    results = run(films, vocabulary, {"tasks": tasks, "probes": [{"name": "shout", "input": "say no"}]}, limit=4)
    results.write(tmp_path / "out")
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert document["probes"] == [{"name": "shout", "input": "say no", "output": "SAY NO"}]
    assert [task["caveat"] for task in document["tasks"]] == ["toy"]
    [written] = document["generated"]
    assert (written["split"], written["metric"], written["records"]) == ("train", "rougeL", 4)
    assert set(written["metrics"]) == set(WRITTEN["metrics"]) == set(written["prompts"][0]["metrics"])
    assert pq.read_table(tmp_path / "out" / "generations.parquet").num_rows == 4
    assert pq.read_table(tmp_path / "out" / "scores.parquet").num_rows > 4


def test_a_suite_of_probes_needs_no_records(
    films: Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_writer(monkeypatch, lambda prompt: str(len(prompt)))
    probes = load_suite("probes").probes
    results = evaluate_model(EvalModel(small_model(vocabulary.size), vocabulary), EvalConfig(load_suite("probes")))
    assert [probe.output for probe in results.probes] == [str(len(probe.input)) for probe in probes]
    results.write(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.json"]


def test_rows_that_a_template_leaves_out_are_counted(
    vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_writer(monkeypatch, str.upper)
    own = write_films(tmp_path)
    templates = own / "templates" / "films" / "templates.yaml"
    jinja = "{{colour}} ||| {{text}}"
    templates.write_text(templates.read_text().replace(jinja, f"{{% if long %}}{jinja}{{% endif %}}"))
    [task] = run(own, vocabulary, {"tasks": [{"dataset": "films", **WRITTEN}]}).generated
    long = sum(record["long"] for record in RECORDS)
    assert 0 < long < len(RECORDS)
    assert task.prompts[0].records == long
    assert task.prompts[0].remarks == {"records that the template leaves out": len(RECORDS) - long}


def test_references_of_a_column_stand_beside_the_target(
    films: Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record's options are accepted, too: the first of them is right everywhere, the text nowhere."""
    with_writer(monkeypatch, lambda prompt: "red")
    tasks = [{"dataset": "films", "kind": "generate", "metrics": ["exact_match"], "references": "options"}]
    results = run(films, vocabulary, {"tasks": tasks})
    for line, record in zip(results.generations.to_pylist(), RECORDS, strict=True):
        assert line["references"] == [record["text"], *record["options"]]
    assert results.generated[0].mean == np.mean(["red" in record["options"] for record in RECORDS])
    for references, complaint in (("option", "did you mean 'options'"), ("options.text", "leads to nothing")):
        with pytest.raises(UserError, match=complaint):
            run(films, vocabulary, {"tasks": [{**tasks[0], "references": references}]})


def test_every_available_generated_dataset_renders(
    real_data: Path, t5_vocabulary: Path, promptsource_folder: Path
) -> None:
    suite, vocabulary = load_suite("generation"), load_vocabulary(t5_vocabulary)
    rendered = 0
    config = EvalConfig(suite, limit=5)
    for entry in resolve_suite(config):
        if not (real_data / entry.dataset.folder).is_dir():
            continue
        table = open_table(entry.dataset, entry.split, str(real_data))
        for prompt in generation_prompts(entry, table, config, vocabulary):
            assert all(prompt.inputs)
            assert all(right[0] for right in prompt.references)
            rendered += len(prompt.inputs)
    assert rendered > 100


def test_squads_answers_are_all_accepted(real_data: Path, t5_vocabulary: Path, promptsource_folder: Path) -> None:
    config = EvalConfig(load_suite("generation"), limit=50)
    [entry] = [entry for entry in resolve_suite(config) if entry.dataset.key == "squad_v2"]
    table = open_table(entry.dataset, entry.split, str(real_data))
    records = table.records()
    several = 0
    for prompt in generation_prompts(entry, table, config, load_vocabulary(t5_vocabulary)):
        for number, references in zip(prompt.records.tolist(), prompt.references, strict=True):
            answers = records[number]["answers"]["text"]
            assert set(references[1:]) <= set(answers) <= set(references)
            several += len(references) > 1
    assert several > 10


@pytest.fixture
def wino_bias(real_data: Path, promptsource_folder: Path) -> SuiteConfig:
    """The part of the bias suite whose records are available."""
    suite = load_suite("bias")
    return suite.model_copy(
        update={
            "tasks": [task for task in suite.tasks if task.dataset.startswith("wino_bias/type1")],
            "differences": suite.differences[:1],
        }
    )


def wino_bias_targets(real_data: Path) -> dict[str, str]:
    """The right answer to every prompt."""
    targets = {}
    for side in ("pro", "anti"):
        dataset = load_catalogue()[f"wino_bias/type1_{side}"]
        for template in load_templates(*dataset.origin).values():
            for record in open_table(dataset, "test", str(real_data)).records():
                example = template.render(record)
                assert example is not None
                targets[example.input] = example.target
    return targets


def test_wino_bias_counts_the_noun_in_the_answer(
    wino_bias: SuiteConfig, real_data: Path, t5_vocabulary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that resolves `he` only: what it gets right depends on the stereotype, and the difference says so."""
    vocabulary, model = load_vocabulary(t5_vocabulary), small_model(32_128)
    targets = wino_bias_targets(real_data)
    with_writer(monkeypatch, lambda prompt: f"I think that it is {targets[prompt].upper()}!")
    results = evaluate_model(EvalModel(model, vocabulary), EvalConfig(wino_bias, source=str(real_data), limit=60))
    assert {task.min for task in results.generated} == {1.0}
    assert results.differences[0].mean_interval == (0, 0)

    def only_he(prompt: str) -> str:
        return targets[prompt] if " he " in f" {prompt} ".replace('"', " ") else "nobody"

    with_writer(monkeypatch, only_he)
    results = evaluate_model(EvalModel(model, vocabulary), EvalConfig(wino_bias, source=str(real_data), limit=60))
    [difference] = results.differences
    pro, anti = (task for task in results.generated)
    assert (pro.records, anti.records, difference.items) == (60, 60, 60)  # the same sentences
    assert difference.mean == pytest.approx(pro.mean - anti.mean)
    assert difference.median == pytest.approx(pro.median - anti.median)
    low, high = difference.mean_interval
    assert low <= difference.mean <= high
    assert high > low
    for task in results.generated:
        shares = [prompt.metrics["contains"] for prompt in task.prompts]
        assert len(shares) == 7
        assert (task.mean, task.median) == pytest.approx((np.mean(shares), np.median(shares)))


def test_folder_of_another_model_or_suite_is_refused(films: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    facts = EvaluatedModel(name="small", run="0a", step=3)
    results = run(films, vocabulary, {"tasks": [{"dataset": "films"}]}, limit=2, facts=facts)
    results.write(tmp_path)

    def changed(**keys: Any) -> EvaluatedModel:
        return facts.model_copy(update=keys)

    check_folder(tmp_path, "films", changed(step=4))
    check_folder(tmp_path / "new", "other", facts)
    for suite, other, complaint in (
        ("films", changed(name="large"), r"results of model 'small', these are of model 'large'"),
        (
            "films",
            changed(run="0b"),
            r"another model that is called 'small', too \(other recipe or seed\)",
        ),
        (
            "films",
            changed(run=None, name="exported"),
            r"model 'small', these are of model 'exported'",
        ),
        ("films", changed(untrained=True), r"untrained False, these are of untrained True"),
        ("bias", facts, r"suite 'films', these are of suite 'bias'"),
    ):
        with pytest.raises(UserError, match=complaint):
            check_folder(tmp_path, suite, other)
    for limit in (2, 3, None):
        check_folder(tmp_path, "films", facts, limit)
    with pytest.raises(UserError, match="of up to 2 records of a dataset, these are of up to 1;"):
        check_folder(tmp_path, "films", facts, limit=1)
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(UserError, match=r"results\.json is not what t0train writes: as a whole: .*.*--out"):
        check_folder(tmp_path, "films", facts)


def test_exported_models_are_told_apart_by_their_weights(films: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    facts = EvaluatedModel(name="here", weights="0a")
    run(films, vocabulary, {"tasks": [{"dataset": "films"}]}, limit=2, facts=facts).write(tmp_path)
    check_folder(tmp_path, "films", facts.model_copy(update={"name": "moved/there"}))
    with pytest.raises(UserError, match=r"another model that is called 'here', too \(other weights\)"):
        check_folder(tmp_path, "films", facts.model_copy(update={"weights": "0b"}))


def test_files_of_an_earlier_evaluation_do_not_stay(films: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    both = {"tasks": [{"dataset": "films"}, {"dataset": "films", **WRITTEN, "max_new_tokens": 2}]}
    run(films, vocabulary, both, limit=2).write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "scores.parquet", "generations.parquet"}
    run(films, vocabulary, {"tasks": both["tasks"][:1]}, limit=2).write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "scores.parquet"}
    run(films, vocabulary, {"tasks": both["tasks"][1:]}, limit=2).write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "generations.parquet"}
