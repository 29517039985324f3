"""Whole evaluations: on records and templates made here, and on real records with perfect and random scorers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, f1_score

from t0train.config import SuiteConfig
from t0train.core.errors import UserError
from t0train.core.hashing import derive_seed
from t0train.data import Vocabulary, load_vocabulary
from t0train.evals import EvalConfig, EvalModel, Results, evaluate_model, rank_choices
from t0train.prompts import Rendered, load_templates
from t0train.results import EvaluatedModel
from t0train.tasks import Dataset, load_catalogue, open_table
from tests.evals.conftest import small_model
from tests.evals.films import CATALOGUE, RECORDS, TEMPLATES, films_config, write_films


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_films(tmp_path_factory.mktemp("films"))


def suite(**entry: Any) -> SuiteConfig:
    return SuiteConfig.model_validate({"name": "films", "tasks": [{"dataset": "films", **entry}]})


def run(
    films: Path,
    vocabulary: Vocabulary,
    chosen: SuiteConfig | None = None,
    facts: EvaluatedModel | None = None,
    **options: Any,
) -> Results:
    model = EvalModel(small_model(vocabulary.size), vocabulary, facts or EvaluatedModel())
    return evaluate_model(model, replace(films_config(films, chosen or suite()), **options))


def choices_of(example: Rendered) -> tuple[str, ...]:
    assert example.choices is not None
    return tuple(example.choices)


def test_scores_and_predictions_are_those_of_the_rendered_records(films: Path, vocabulary: Vocabulary) -> None:
    results = run(films, vocabulary)
    [task] = results.tasks
    assert [prompt.name for prompt in task.prompts] == ["colour", "good or bad", "long ones only"]
    assert task.left_out == {"say it": "no answer choices"}
    model = small_model(vocabulary.size)
    for name, template in load_templates("films", None, [films / "templates"]).items():
        if name == "say it":
            continue
        every = {record: template.render(values) for record, values in enumerate(RECORDS)}
        rendered = {record: example for record, example in every.items() if example is not None}
        expected = rank_choices(model, vocabulary, [(one.input, choices_of(one)) for one in rendered.values()])
        found = [line for line in results.scores.to_pylist() if line["prompt"] == name]
        assert [line["record"] for line in found] == list(rendered)
        np.testing.assert_allclose(
            np.concatenate([line["scores"] for line in found]), np.concatenate(expected), atol=1e-4
        )
        assert [line["prediction"] for line in found] == [int(np.argmax(values)) for values in expected]
        answers = [choices_of(one)[line["prediction"]] for line, one in zip(found, rendered.values(), strict=True)]
        [prompt] = [prompt for prompt in task.prompts if prompt.name == name]
        targets = [example.target for example in rendered.values()]
        assert prompt.accuracy == pytest.approx(accuracy_score(targets, answers))
        assert prompt.records == len(rendered)


def test_baselines_and_rows_whose_gold_is_no_choice(films: Path, vocabulary: Vocabulary) -> None:
    [task] = run(films, vocabulary).tasks
    colour, sentiment, long_ones = (prompt for prompt in task.prompts)
    labels = [record["label"] for record in RECORDS]
    constant = DummyClassifier(strategy="most_frequent").fit(np.zeros((len(RECORDS), 1)), labels)
    assert sentiment.majority == pytest.approx(constant.score(np.zeros((len(RECORDS), 1)), labels))
    assert sentiment.chance == 0.5
    assert sentiment.gold_not_in_choices == 0
    odd = sum(record["colour"] not in record["options"] for record in RECORDS)
    assert odd > 0
    assert colour.gold_not_in_choices == odd
    assert colour.chance == pytest.approx((len(RECORDS) - odd) / len(RECORDS) / 3)
    assert long_ones.records == sum(record["long"] for record in RECORDS) < len(RECORDS) == task.records
    left_out = len(RECORDS) - long_ones.records
    expected = [{}, {}, {"records that the template leaves out": left_out}]
    assert [prompt.remarks for prompt in task.prompts] == expected


def test_files_hold_what_the_results_say(films: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    results = run(films, vocabulary, limit=20, facts=EvaluatedModel(name="small", step=3))
    results.write(tmp_path / "out")
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (document["model"]["name"], document["model"]["step"]) == ("small", 3)
    assert (document["suite"], document["limit"]) == ("films", 20)
    [task] = document["tasks"]
    table = pq.read_table(tmp_path / "out" / "scores.parquet").to_pandas()
    for prompt in task["prompts"]:
        lines = table[table["prompt"] == prompt["name"]]
        assert set(lines["task"]) == {prompt["task"]}
        assert len(lines) == prompt["records"]
        assert lines["right"].mean() == pytest.approx(prompt["accuracy"])
        assert (lines["right"] == (lines["prediction"] == lines["gold"])).all()
        assert [int(np.argmax(scores)) for scores in lines["scores"]] == lines["prediction"].tolist()
    accuracies = [prompt["accuracy"] for prompt in task["prompts"]]
    assert task["median"] == pytest.approx(np.median(accuracies))
    assert task["mean"] == pytest.approx(np.mean(accuracies))
    assert task["iqr"] == pytest.approx(np.percentile(accuracies, [25, 75]))
    assert task["interval"][0] <= task["median"] <= task["interval"][1]
    assert task["mean_interval"][0] <= task["mean"] <= task["mean_interval"][1]


def test_limit_draws_the_same_rows_for_all_prompts(films: Path, vocabulary: Vocabulary) -> None:
    def records(**options: Any) -> dict[str, set[int]]:
        lines = run(films, vocabulary, **options).scores.to_pylist()
        return {
            name: {line["record"] for line in lines if line["prompt"] == name} for name in ("colour", "long ones only")
        }

    drawn = records(limit=20)
    assert len(drawn["colour"]) == 20
    assert drawn["colour"] != set(range(20))
    assert drawn["long ones only"] == {record for record in drawn["colour"] if RECORDS[record]["long"]}
    assert records(limit=20) == drawn
    assert records(limit=20, seed=1) != drawn
    assert records(chosen=suite(limit=20)) == drawn
    assert records(chosen=suite(limit=20), limit=10)["colour"] < drawn["colour"]


def test_slice_of_a_split(films: Path, vocabulary: Vocabulary) -> None:
    whole = run(films, vocabulary).scores.to_pylist()
    part = run(films, vocabulary, chosen=suite(split="validation[10:30]")).scores.to_pylist()
    expected = {(line["prompt"], line["record"]): line["scores"] for line in whole}
    assert {line["record"] for line in part} == set(range(20))
    for line in part:
        assert line["scores"] == pytest.approx(expected[line["prompt"], line["record"] + 10], abs=1e-4)


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ("all", ["colour", "good or bad", "long ones only"]),
        ("original", ["good or bad", "long ones only"]),
        ("one", ["good or bad"]),
        (["long ones only", "colour"], ["colour", "long ones only"]),
    ],
)
def test_choice_of_prompts(films: Path, vocabulary: Vocabulary, prompts: Any, expected: list[str]) -> None:
    [task] = run(films, vocabulary, chosen=suite(prompts=prompts), limit=5).tasks
    assert [prompt.name for prompt in task.prompts] == expected


def test_a_number_of_prompts_is_drawn(films: Path, vocabulary: Vocabulary) -> None:
    names = [
        tuple(
            prompt.name
            for prompt in run(films, vocabulary, chosen=suite(prompts=2), limit=5, seed=seed).tasks[0].prompts
        )
        for seed in range(6)
    ]
    assert {len(drawn) for drawn in names} == {2}
    assert len(set(names)) > 1


def test_odd_choices_are_counted(films: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    """Empty, repeated and over-long choices are scored as the original does, and said."""
    (tmp_path / "odd" / "default").mkdir(parents=True)
    records: list[dict[str, Any]] = [
        {"q": "which", "a": ["yes", "no"]},
        {"q": "which", "a": ["yes", "", "yes"]},
        {"q": "which", "a": ["no " * 400, "yes"]},
        {"q": "which", "a": ["no " * 400 + "red", "no " * 400 + "blue"]},
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "odd" / "default" / "validation.jsonl").write_text(lines)
    (tmp_path / "templates" / "odd").mkdir(parents=True)
    (tmp_path / "templates" / "odd" / "templates.yaml").write_text(
        "dataset: odd\ntemplates:\n  a: !Template\n    name: pick\n"
        '    jinja: "{{q}} ||| {{a[0]}}"\n    answer_choices: "{{a | join(\'|||\')}}"\n'
        "    metadata: !TemplateMetadata {original_task: true}\n"
    )

    def picked(split: str) -> Any:
        chosen = SuiteConfig.model_validate({"name": "odd", "tasks": [{"dataset": "odd", "split": split}]})
        return run(tmp_path, vocabulary, chosen, source=str(tmp_path), catalogue={"odd": Dataset("odd")})

    [prompt] = picked("validation").tasks[0].prompts
    assert prompt.remarks == {
        "empty choice": 1,
        "choices with the same tokens": 2,
        "choice cut to 256 tokens": 2,
    }
    assert prompt.records == len(records)
    [line] = picked("validation[1:2]").scores.to_pylist()
    assert line["scores"][0] == line["scores"][2] != line["scores"][1]


def test_an_item_without_choices_is_named(vocabulary: Vocabulary) -> None:
    with pytest.raises(UserError, match="example 1 has no choices"):
        rank_choices(small_model(vocabulary.size), vocabulary, [("the film", ["good"]), ("the film", [])])


def test_f1_stands_beside_the_accuracy(films: Path, vocabulary: Vocabulary) -> None:
    results = run(films, vocabulary, suite(metrics=["f1"]))
    [task] = results.tasks
    with_f1 = {prompt.name: prompt.metrics for prompt in task.prompts}
    assert with_f1.pop("colour") == {}  # its choices differ from record to record
    lines = results.scores.to_pylist()
    for name, metrics in with_f1.items():
        pairs = [(line["gold"], line["prediction"]) for line in lines if line["prompt"] == name]
        assert metrics["f1"] == pytest.approx(f1_score(*zip(*pairs, strict=True)))
    assert task.metrics["f1"].mean == pytest.approx(np.mean([metrics["f1"] for metrics in with_f1.values()]))
    low, high = task.metric_intervals["f1"]
    assert low <= task.metrics["f1"].median <= high
    # the share of class 1 decides what baselines get: 40 of 60 records are good, and label i % 3 > 0 of the long ones
    shares = [40 / 60, np.mean([record["label"] for record in RECORDS if record["long"]])]
    majority = np.mean([2 * share / (1 + share) for share in shares])
    chance = np.mean([share / (share + 0.5) for share in shares])
    assert task.metric_baselines == {"f1": {"chance": pytest.approx(chance), "majority": pytest.approx(majority)}}
    of_prompt = results.tasks[0].prompts[1]
    assert set(of_prompt.metrics) == set(of_prompt.metric_intervals) == set(of_prompt.metric_baselines)


def test_scores_are_divided_by_tokens_or_characters(
    tmp_path: Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`no` has 2 tokens with EOS and 2 characters, `a very red answer` 5 and 17.

    Scores -1 and -2: by tokens -0.5 and -0.4, so the long one wins. -1 and -4: -0.5 and -0.8, by characters -0.5 and
    -0.24, so it wins by characters alone.
    """
    short, long = "no", "a very red answer"
    assert (len(vocabulary.encode(short)), len(vocabulary.encode(long)), len(long)) == (1, 4, 17)
    folder = tmp_path / "bigbench" / "two"
    folder.mkdir(parents=True)
    examples = [{"input": f"question {i}", "target_scores": {short: 1, long: 0}} for i in range(2)]
    (folder / "task.json").write_text(json.dumps({"examples": examples}))

    def score(task: str, record: int, choices: list[np.ndarray]) -> np.ndarray:
        of_long = (-2.0, -4.0)[record]
        return np.array([-1.0 if vocabulary.decode(choice) == short else of_long for choice in choices])

    with_scorer(monkeypatch, score)
    identities = set()
    for normalise, right in (("sum", [1, 1]), ("mean_tokens", [0, 1]), ("mean_chars", [0, 0])):
        entry = {"dataset": "two", "kind": "bigbench", "normalise": normalise}
        chosen = SuiteConfig.model_validate({"name": "two", "tasks": [entry]})
        results = evaluate_model(
            EvalModel(small_model(vocabulary.size), vocabulary), EvalConfig(chosen, source=str(tmp_path))
        )
        lines = results.scores.to_pylist()
        assert [line["right"] for line in lines] == right
        assert [sorted(line["scores"]) for line in lines] == [[-2, -1], [-4, -1]]  # sums are kept
        [task] = results.tasks
        assert task.normalise == normalise
        assert task.mean == np.mean(right)
        identities.add(task.prompts[0].identity)
    assert len(identities) == 3  # one is not compared with the other


def test_bad_input_gives_one_message(films: Path, vocabulary: Vocabulary) -> None:
    with pytest.raises(UserError, match=r"'filmz'.*did you mean 'films'"):
        run(films, vocabulary, chosen=SuiteConfig.model_validate({"name": "s", "tasks": [{"dataset": "filmz"}]}))
    with pytest.raises(UserError, match=r"'color'.*did you mean 'colour'"):
        run(films, vocabulary, chosen=suite(prompts=["color"]))
    with pytest.raises(UserError, match="no prompt of films is both selected"):
        run(films, vocabulary, chosen=suite(prompts=["say it"]))
    missing = SuiteConfig.model_validate(
        {"name": "s", "tasks": [{"dataset": "films", "split": "test"}, {"dataset": "imdb"}]}
    )
    (films / "templates" / "imdb").mkdir(exist_ok=True)
    (films / "templates" / "imdb" / "templates.yaml").write_text(TEMPLATES)
    with pytest.raises(UserError, match=r"(?s)none of the suite's 2 tables.*films \(test\): .*imdb \(validation\): "):
        run(films, vocabulary, chosen=missing, catalogue={**load_catalogue(), **CATALOGUE})
    with pytest.raises(UserError, match=r"vocabulary .* has .* pieces, but the model's embedding has 100 rows"):
        evaluate_model(EvalModel(small_model(100), vocabulary), EvalConfig(suite()))


def with_scorer(monkeypatch: pytest.MonkeyPatch, score: Callable[[str, int, list[np.ndarray]], np.ndarray]) -> None:
    """Let `score(task, record, choices)` take the model's place."""

    def scorer(model: Any, items: Any, name: Callable[[int], str], **options: Any) -> list[np.ndarray]:
        places = [re.fullmatch(r"task (.+), record (\d+)", name(i)) for i in range(len(items))]
        return [
            score(place[1], int(place[2]), choices) for place, (_, choices) in zip(places, items, strict=True) if place
        ]

    monkeypatch.setattr("t0train.evals.rank.rank_tokens", scorer)


AVAILABLE = {
    "ag_news": "test[:40]",
    "ai2_arc/ARC-Challenge": "validation[:40]",
    "ai2_arc/ARC-Easy": "validation[:40]",
    "amazon_polarity": "test",
    "app_reviews": "train",
    "cos_e/v1.11": "validation[:40]",
    "cosmos_qa": "validation[:40]",
    "crows_pairs": "test[:40]",
    "dbpedia_14": "test",
    "glue/mrpc": "validation[:40]",
    "glue/qqp": "validation",
    "hellaswag": "validation[:40]",
    "imdb": "test[980:1020]",
    "piqa": "validation[:40]",
    "qasc": "validation",
    "quail": "validation[:40]",
    "quarel": "validation",
    "sciq": "validation",
    "squad_v2": "validation[:40]",
    "super_glue/copa": "validation",
    "super_glue/multirc": "validation[:40]",
    "super_glue/record": "train[:20]",
    "super_glue/rte": "validation[:40]",
    "super_glue/wsc.fixed": "validation[:40]",
    "trec": "test[:40]",
    "wiki_qa": "validation[:40]",
    "wiqa": "validation",
}
"""Every dataset of the real records that has templates with answer choices."""


@pytest.fixture(scope="module")
def available(real_data: Path, promptsource_folder: Path) -> SuiteConfig:
    tasks = [{"dataset": key, "split": split} for key, split in AVAILABLE.items()]
    return SuiteConfig.model_validate({"name": "available", "tasks": tasks})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("store"))


def rendered(key: str, split: str, source: str) -> dict[tuple[str, int], Rendered]:
    """Examples by (task, record), rendered here."""
    dataset = load_catalogue()[key]
    records = open_table(dataset, split, source).records()
    examples = {}
    for template in load_templates(*dataset.origin).values():
        for number, record in enumerate(records if template.answer_choices is not None else []):
            seed = derive_seed(0, dataset.task_name(template.name), number) if template.is_random else 0
            examples[dataset.task_name(template.name), number] = template.render(record, seed)
    return {place: example for place, example in examples.items() if example is not None}


@pytest.mark.slow
def test_a_perfect_scorer_is_right_wherever_the_gold_is_a_choice(
    available: SuiteConfig, real_data: Path, t5_vocabulary: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gold given infinite score: 100 % on every dataset, but for records whose gold is no choice; those are listed.

    And but for choices that T5's vocabulary cannot tell apart (stars of app_reviews): the first of them is predicted.
    """
    vocabulary = load_vocabulary(t5_vocabulary)
    examples = {
        place: example
        for key, split in AVAILABLE.items()
        for place, example in rendered(key, split, str(real_data)).items()
    }
    texts = dict.fromkeys(text for example in examples.values() for text in (example.target, *choices_of(example)))
    ids = dict(zip(texts, vocabulary.encode_many(list(texts)), strict=True))

    def perfect(task: str, record: int, choices: list[np.ndarray]) -> np.ndarray:
        gold = np.append(ids[examples[task, record].target], np.uint16(1))
        return np.array([np.inf if np.array_equal(choice, gold) else 0.0 for choice in choices])

    with_scorer(monkeypatch, perfect)
    results = evaluate_model(
        EvalModel(small_model(32_128), vocabulary), EvalConfig(available, source=str(real_data), store=store)
    )
    assert [task.dataset for task in results.tasks] == list(AVAILABLE)
    odd = {place for place, example in examples.items() if example.target not in choices_of(example)}
    blurred = set()
    for place, example in examples.items():
        alike = (choice for choice in choices_of(example) if np.array_equal(ids[choice], ids[example.target]))
        blurred |= {place} if next(alike, example.target) != example.target else set()
    assert {task for task, _ in blurred} == {"app_reviews_convert_to_star_rating"}
    lines = results.scores.select(["task", "record", "gold", "right"]).to_pylist()
    assert {(line["task"], line["record"]) for line in lines} == set(examples)
    assert {(line["task"], line["record"]) for line in lines if line["gold"] == -1} == odd
    assert {(line["task"], line["record"]) for line in lines if line["right"] != 1} == odd | blurred
    for prompt in (prompt for task in results.tasks for prompt in task.prompts):
        one = prompt
        wrong = sum(name == prompt.task for name, _ in odd | blurred)
        assert one.accuracy == pytest.approx(1 - wrong / one.records)
        assert one.gold_not_in_choices == sum(name == prompt.task for name, _ in odd)


def test_a_random_scorer_is_at_chance(
    available: SuiteConfig, real_data: Path, t5_vocabulary: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    with_scorer(monkeypatch, lambda task, record, choices: random.random(len(choices)))
    vocabulary = load_vocabulary(t5_vocabulary)
    results = evaluate_model(
        EvalModel(small_model(32_128), vocabulary), EvalConfig(available, source=str(real_data), store=store)
    )
    large = [task for task in results.tasks if task.records >= 40]  # a bootstrap of five records covers nothing
    outside = [task.dataset for task in large if not task.mean_interval[0] <= task.chance <= task.mean_interval[1]]
    assert len(large) > 15
    assert len(outside) <= 3  # 5 % of the intervals miss
    everything = [prompt for task in results.tasks for prompt in task.prompts]
    records = np.array([one.records for one in everything])
    expected = np.average([one.chance for one in everything], weights=records)
    assert np.average([one.accuracy for one in everything], weights=records) == pytest.approx(expected, abs=0.02)


def test_a_small_model_on_real_rows_equals_ranking_the_rendered_texts(
    real_data: Path, t5_vocabulary: Path, promptsource_folder: Path, tmp_path: Path
) -> None:
    vocabulary = load_vocabulary(t5_vocabulary)
    model = small_model(32_128)
    chosen = SuiteConfig.model_validate(
        {"name": "real", "tasks": [{"dataset": "super_glue/rte", "split": "validation", "limit": 20}]}
    )
    results = evaluate_model(
        EvalModel(model, vocabulary), EvalConfig(chosen, source=str(real_data), store=str(tmp_path))
    )
    [task] = results.tasks
    assert len(task.prompts) == 10
    assert {prompt.records for prompt in task.prompts} == {20}
    records = open_table(load_catalogue()["super_glue/rte"], "validation", str(real_data)).records()
    templates = load_templates("super_glue", "rte")
    lines = results.scores.to_pylist()
    rendered = [templates[line["prompt"]].render(records[line["record"]]) for line in lines]
    expected = rank_choices(model, vocabulary, [(one.input, choices_of(one)) for one in rendered if one is not None])
    np.testing.assert_allclose(np.concatenate([line["scores"] for line in lines]), np.concatenate(expected), atol=1e-4)
