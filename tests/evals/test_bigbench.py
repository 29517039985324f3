"""BIG-bench: tasks written by hand with every field, sub-tasks and gaps, and the real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t0train.config import SuiteConfig, load_suite
from t0train.core.errors import UserError
from t0train.data import Vocabulary, load_vocabulary
from t0train.evals import EvalConfig, EvalModel, Results, evaluate_model
from t0train.evals.bigbench import read_task
from t0train.model import to_huggingface
from tests.evals.conftest import small_model
from tests.evals.test_evaluation import with_scorer
from tests.evals.test_rank import one_choice_at_a_time

COLOURS = {
    "name": "colours",
    "task_prefix": "Name the colour. ",
    "example_input_prefix": "\nthing: ",
    "example_output_prefix": "\ncolour: ",
    "choice_prefix": "\n- ",
    "examples": [
        {"input": "grass", "target_scores": {"red": 0, "green": 1, "blue": 0}},
        {"input": "sky", "target": "blue"},
        {"input": "sea", "target_scores": {"green": 0.4, "blue": 1.0}},
        {"input": "soul", "target_scores": {"red": 0, "green": 0}},
    ],
}


def write(folder: Path, task: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.json").write_text(json.dumps(task))
    return folder


def suite(*names: str, **options: Any) -> SuiteConfig:
    tasks = [{"kind": "bigbench", "dataset": name, **options} for name in names]
    return SuiteConfig.model_validate({"name": "bb", "tasks": tasks})


def run(source: Path, vocabulary: Vocabulary, chosen: SuiteConfig, **options: Any) -> Results:
    return evaluate_model(
        EvalModel(small_model(vocabulary.size), vocabulary), EvalConfig(chosen, source=str(source), **options)
    )


def test_text_is_prefix_input_choices_and_output_prefix(tmp_path: Path) -> None:
    [part] = read_task(write(tmp_path / "colours", COLOURS), "colours")
    first, second, third = part.examples
    start, end = "Name the colour. \nthing: grass\n- ", "\ncolour:"
    assert first.text.startswith(start)
    assert first.text.endswith(end)
    shown = first.text.removeprefix(start).removesuffix(end).split("\n- ")
    assert sorted(shown) == ["blue", "green", "red"]
    assert list(first.choices) == shown  # ranked in the order in which they are shown
    assert first.grades.tolist() == [choice == "green" for choice in shown]
    assert [first.record, second.record, third.record] == [0, 2, 3]  # the second example has no target scores
    assert (part.size, dict(zip(second.choices, second.grades, strict=True))) == (4, {"green": 0.4, "blue": 1.0})


def test_order_of_the_choices_is_drawn_by_the_seed(tmp_path: Path) -> None:
    examples = [{"input": f"thing {i}", "target_scores": {"a": 1, "b": 0, "c": 0, "d": 0}} for i in range(40)]
    folder = write(tmp_path / "many", {"examples": examples})
    texts = {seed: [example.text for example in read_task(folder, "many", seed)[0].examples] for seed in (0, 1)}
    assert texts[0] == [example.text for example in read_task(folder, "many", 0)[0].examples]
    assert texts[0] != texts[1]
    firsts = [text.split("choice: ")[1][0] for text in texts[0]]
    assert set(firsts) == set("abcd")
    hidden = write(tmp_path / "hidden", {"examples": examples, "append_choices_to_input": False})
    assert {example.choices[0] for example in read_task(hidden, "hidden")[0].examples} == set("abcd")


def test_defaults_hidden_choices_and_seams(tmp_path: Path) -> None:
    plain = {"examples": [{"input": "1 + 1 =", "target_scores": {"2": 1}}]}
    [part] = read_task(write(tmp_path / "plain", plain), "plain")
    assert part.examples[0].text == "Q: 1 + 1 =\n  choice: 2\nA:"
    [part] = read_task(write(tmp_path / "hidden", {**plain, "append_choices_to_input": False}), "hidden")
    assert part.examples[0].text == "Q: 1 + 1 =\nA:"
    glued = {**plain, "task_prefix": "Sum.", "example_input_prefix": "Q: ", "example_output_prefix": "A: "}
    [part] = read_task(write(tmp_path / "glued", glued), "glued")
    assert part.examples[0].text == "Sum.\nQ: 1 + 1 =\n  choice: 2\nA:"


def likes(vocabulary: Vocabulary, wanted: str) -> Callable[..., np.ndarray]:
    """A scorer that likes one choice best, whatever its position."""
    return lambda task, record, choices: np.array([float(vocabulary.decode(choice) == wanted) for choice in choices])


def test_grade_is_the_target_score_of_the_likeliest_choice(
    tmp_path: Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "bigbench" / "colours", COLOURS)
    with_scorer(monkeypatch, likes(vocabulary, "green"))
    results = run(tmp_path, vocabulary, suite("colours"))
    [task] = results.tasks
    assert (task.dataset, task.split, task.family) == ("bigbench/colours", "default", "BIG-bench")
    [prompt] = task.prompts
    assert (prompt.name, prompt.task) == ("colours", "bigbench_colours")
    assert prompt.remarks == {"examples without target scores, skipped": 1}
    assert prompt.records == 3
    assert prompt.accuracy == pytest.approx((1 + 0.4 + 0) / 3)
    assert prompt.chance == pytest.approx((1 / 3 + 0.7 + 0) / 3)
    assert prompt.gold_not_in_choices == 1
    lines = results.scores.to_pylist()
    assert [line["record"] for line in lines] == [0, 2, 3]
    [part] = read_task(tmp_path / "bigbench" / "colours", "colours")
    golds = [part.examples[0].choices.index("green"), part.examples[1].choices.index("blue"), -1]
    assert [line["gold"] for line in lines] == golds
    assert [line["right"] for line in lines] == [1, 0.4, 0]


def check_constant(monkeypatch: pytest.MonkeyPatch, score: Callable[[], Results]) -> None:
    """A scorer that likes all choices the same takes the first one: its grade and the majority's are near chance."""
    with_scorer(monkeypatch, lambda task, record, choices: np.zeros(len(choices)))
    for task in score().tasks:
        [prompt] = task.prompts
        one = prompt
        tolerance = 4 * (one.chance * (1 - one.chance) / one.records) ** 0.5  # grades are 0 or 1, so binomial
        assert one.accuracy == pytest.approx(one.chance, abs=tolerance)
        assert one.majority == pytest.approx(one.chance, abs=tolerance)


@pytest.mark.parametrize("shown", [True, False])
def test_a_constant_scorer_is_at_chance_where_the_first_choice_is_right(
    tmp_path: Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch, shown: bool
) -> None:
    examples = [
        {"input": f"thing {i}", "target_scores": {"yes": 1, **dict.fromkeys(["no", "red", "blue"], 0)}}
        for i in range(300)
    ]
    write(tmp_path / "bigbench" / "first", {"examples": examples, "append_choices_to_input": shown})
    check_constant(monkeypatch, lambda: run(tmp_path, vocabulary, suite("first")))


def test_sub_tasks_count_the_same(tmp_path: Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    """One right of one, and none right of three: one half."""
    for name, scores in (("easy", [1]), ("hard", [0, 0, 0])):
        examples = [
            {"input": f"{name} {i}", "target_scores": {"yes": right, "no": 1 - right}} for i, right in enumerate(scores)
        ]
        write(tmp_path / "bigbench" / "logic" / name, {"examples": examples})
    with_scorer(monkeypatch, likes(vocabulary, "yes"))
    [task] = run(tmp_path, vocabulary, suite("logic")).tasks
    assert [prompt.name for prompt in task.prompts] == ["easy", "hard"]
    assert [prompt.task for prompt in task.prompts] == ["bigbench_logic_easy", "bigbench_logic_hard"]
    assert (task.records, task.mean) == (4, 0.5)


def test_more_choices_than_a_decoder_row_holds(tmp_path: Path, vocabulary: Vocabulary) -> None:
    """Some hundred choices of several tokens each need several rows; the scores are those of each choice alone."""
    random = np.random.default_rng(0)
    words = ["red", "green", "blue", "good", "bad", "yes", "no", "film", "food", "answer"]
    named = list(dict.fromkeys(" ".join(random.choice(words, 4)) for _ in range(130)))
    scores = {choice: int(k == 77) for k, choice in enumerate(named)}
    task = {"append_choices_to_input": False, "examples": [{"input": "which of these", "target_scores": scores}]}
    write(tmp_path / "bigbench" / "wide", task)
    results = run(tmp_path, vocabulary, suite("wide"))
    [line] = results.scores.to_pylist()
    choices = read_task(tmp_path / "bigbench" / "wide", "wide")[0].examples[0].choices
    ids = [np.append(vocabulary.encode(choice), np.uint16(1)) for choice in choices]
    assert sum(map(len, ids)) > 2 * 256
    inputs = vocabulary.encode("Q: which of these\nA:")
    [expected] = one_choice_at_a_time(to_huggingface(small_model(vocabulary.size)), [(inputs, ids)])
    np.testing.assert_allclose(line["scores"], expected, atol=1e-4)
    assert (line["prediction"], line["gold"]) == (int(expected.argmax()), choices.index(named[77]))


def test_limit_and_tasks_without_anything_to_score(tmp_path: Path, vocabulary: Vocabulary) -> None:
    for name in ("first", "second"):
        write(tmp_path / "bigbench" / "colours" / name, COLOURS)
    write(tmp_path / "bigbench" / "open", {"examples": [{"input": "say", "target": "it"}]})
    results = run(tmp_path, vocabulary, suite("colours", "open", "nowhere"), limit=5)
    assert results.scores.num_rows <= 5
    assert [(missing.dataset, missing.reason[:16]) for missing in results.missing] == [
        ("bigbench/nowhere", "no task.json in "),
        ("bigbench/open", "no example that "),
    ]
    with pytest.raises(UserError, match=r"(?s)nothing to score.*bigbench/open.*target_scores"):
        run(tmp_path, vocabulary, suite("open"))
    with pytest.raises(UserError, match=r"(?s)none of the suite's 1 tables.*BIG-bench is read from files"):
        evaluate_model(EvalModel(small_model(vocabulary.size), vocabulary), EvalConfig(suite("colours")))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "not JSON"),
        ('{"examples": [{"input": "x", "target_scores": {"a": 1, "b": 0, "a": 0}}]}', "'a' occurs twice"),
        ("[]", 'a list "examples"'),
        ('{"examples": []}', "at least one example"),
        ('{"examples": ["x"]}', "example 1: "),
        ('{"examples": [{"input": "x", "target_scores": {"a": 1}}, {"target_scores": {"a": 1}}]}', "example 2: "),
        ('{"examples": [{"input": "x", "target_scores": {}}]}', "a number for each choice"),
        ('{"examples": [{"input": 5, "target_scores": {"a": 1}}]}', 'a text "input"'),
        ('{"examples": [{"input": "x", "target_scores": null}]}', "a number for each choice"),
        ('{"examples": [{"input": "x", "target_scores": {"b": 0, "a": "1"}}]}', "of 'a' is \"1\", expected a number"),
        ('{"examples": [{"input": "x", "target_scores": {"b": 0, "a": -1}}]}', "of 'a' is -1, expected a number"),
        ('{"examples": [{"input": "x", "target_scores": {"b": 0, "a": 1.5}}]}', "of 'a' is 1.5, expected a number"),
        ('{"examples": [{"input": "x", "target_scores": {"b": 0, "a": null}}]}', "of 'a' is null, expected a number"),
        ('{"examples": [{"input": "x", "target_scores": {"b": 0, "a": 100}}]}', "of 'a' is 100, expected a number"),
        ('{"examples": [{"input": "x", "target_scores": {"a": NaN}}]}', "NaN is no JSON value"),
        ('{"examples": [{"input": "x", "target_scores": {"a": 0, "b": 0}}]}', "no answer can be right"),
        *(
            (json.dumps({"examples": COLOURS["examples"], key: value}), f'"{key}" is {said}, expected a text')
            for key in ("task_prefix", "example_input_prefix", "choice_prefix", "example_output_prefix", "name")
            for value, said in ((None, "null"), (7, "7"), (["x"], '["x"]'))
        ),
        (
            json.dumps({"examples": COLOURS["examples"], "append_choices_to_input": "false"}),
            '"append_choices_to_input" is "false", expected true or false',
        ),
    ],
)
def test_malformed_files_are_named(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "task.json").write_text(content)
    with pytest.raises(UserError, match=r"task\.json") as caught:
        read_task(tmp_path, "task")
    assert complaint in str(caught.value)


def test_odd_files_that_can_be_scored(tmp_path: Path, vocabulary: Vocabulary) -> None:
    """Booleans as scores, a byte order mark, no name, and examples with a single choice, which are counted."""
    examples = [
        {"input": "sky", "target_scores": {"blue": True, "red": False}},
        {"input": "sea", "target_scores": {"blue": 1}},
    ]
    folder = tmp_path / "bigbench" / "odd"
    folder.mkdir(parents=True)
    (folder / "task.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"examples": examples}).encode())
    first, _ = read_task(folder, "odd")[0].examples
    assert dict(zip(first.choices, first.grades, strict=True)) == {"blue": 1.0, "red": 0.0}
    [task] = run(tmp_path, vocabulary, suite("odd")).tasks
    assert task.prompts[0].remarks == {"examples with a single choice, right whatever the model says": 1}
    assert task.prompts[0].chance == (0.5 + 1) / 2


RECORDS = {
    "conceptual_combinations": 103,
    "language_identification": 500,
    "logical_deduction": 500,
    "novel_concepts": 32,
    "strategyqa": 500,
}


def test_perfect_and_random_scorers_on_the_real_tasks(
    real_data: Path, t5_vocabulary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = load_vocabulary(t5_vocabulary)
    examples = {
        f"bigbench_{name}": json.loads((real_data / "bigbench" / name / "task.json").read_text())["examples"]
        for name in RECORDS
    }

    def perfect(task: str, record: int, choices: list[np.ndarray]) -> np.ndarray:
        scores = examples[task][record]["target_scores"]
        return np.array([scores[vocabulary.decode(choice)] for choice in choices])

    model = small_model(32_128)
    chosen = load_suite("bigbench14")

    def scored() -> Results:
        return evaluate_model(EvalModel(model, vocabulary), EvalConfig(chosen, source=str(real_data)))

    with_scorer(monkeypatch, perfect)
    results = scored()
    assert {task.dataset.partition("/")[2]: task.records for task in results.tasks} == RECORDS
    assert len(results.missing) == 9
    assert {task.mean for task in results.tasks} == {1.0}

    random = np.random.default_rng(0)
    with_scorer(monkeypatch, lambda task, record, choices: random.random(len(choices)))
    for task in scored().tasks:
        low, high = task.mean_interval
        assert low <= task.chance <= high


def test_a_constant_scorer_is_at_chance_on_the_real_tasks(
    real_data: Path, t5_vocabulary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary, model = load_vocabulary(t5_vocabulary), small_model(32_128)
    check_constant(
        monkeypatch,
        lambda: evaluate_model(
            EvalModel(model, vocabulary), EvalConfig(load_suite("bigbench14"), source=str(real_data))
        ),
    )
