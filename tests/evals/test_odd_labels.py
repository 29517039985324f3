"""Labels that index no choice, records of one class, nulls: no figure of 0.0 or 100.0 comes without its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t0train.cli.eval_tables import print_results
from t0train.config import SuiteConfig
from t0train.core.errors import UserError
from t0train.data import Vocabulary
from t0train.evals import EvalModel, Results, evaluate_model
from t0train.evals.eval_config import SINGLE_CHOICE
from t0train.results import EvaluatedModel
from t0train.results.results_json import RankedPromptScore
from t0train.tasks import Dataset
from tests.evals.conftest import small_model
from tests.evals.films import films_config

TEMPLATES = """
dataset: mail
templates:
  a: !Template
    name: urgent
    jinja: "{{text}} . yes or no ||| {{answer_choices[label]}}"
    answer_choices: no ||| yes
    metadata: !TemplateMetadata {original_task: true}
  b: !Template
    name: write
    jinja: "{{text}} ||| {{answer}}"
    metadata: !TemplateMetadata {original_task: true}
  c: !Template
    name: one option
    jinja: "{{text}} ||| {{answer_choices[0]}}"
    answer_choices: "{{answer}}"
    metadata: !TemplateMetadata {original_task: true}
  d: !Template
    name: typing error
    jinja: "{{text}} {{of.txet}} {{answer}} ||| {{answer_choices[label]}}"
    answer_choices: no ||| yes
    metadata: !TemplateMetadata {original_task: true}
  e: !Template
    name: other words
    jinja: "{{text}} ||| certainly {{answer}}"
    answer_choices: no ||| yes
    metadata: !TemplateMetadata {original_task: true}
"""


def score(
    folder: Path, vocabulary: Vocabulary, records: list[dict[str, Any]], prompt: str = "urgent", **suite: Any
) -> Results:
    for place in ("data/mail/default", "templates/mail"):
        (folder / place).mkdir(parents=True)
    usual = {"answer": "red", "of": {"text": "x"}}
    full = [{"text": f"film {'good ' * (i % 3)}", **usual, **record} for i, record in enumerate(records)]
    lines = "".join(json.dumps(record) + "\n" for record in full)
    (folder / "data" / "mail" / "default" / "validation.jsonl").write_text(lines)
    (folder / "templates" / "mail" / "templates.yaml").write_text(TEMPLATES)
    kind = {"kind": "generate", "metrics": ["exact_match"], "max_new_tokens": 2} if prompt == "write" else {}
    tasks = [{"dataset": "mail", "prompts": [prompt], **kind}]
    chosen = SuiteConfig.model_validate({"name": "mail", "tasks": tasks, **suite})
    model = EvalModel(small_model(vocabulary.size), vocabulary, EvaluatedModel(name="small"))
    return evaluate_model(model, films_config(folder, chosen, {"mail": Dataset(name="mail", family="mail")}))


def only(results: Results) -> RankedPromptScore:
    [task] = results.tasks
    [prompt] = task.prompts
    return prompt


@pytest.mark.parametrize(
    "labels",
    [["no", "yes", "no"], ["0", "1", "0"], [0.0, 1.0, 0.0], [None, None, None], [2, 3, 2]],
    ids=["text", "digits", "float", "null", "too large"],
)
def test_labels_that_index_no_choice_anywhere_are_refused(
    labels: list[Any], vocabulary: Vocabulary, tmp_path: Path
) -> None:
    records = [{"label": label} for label in labels]
    with pytest.raises(UserError, match=r"prompt 'urgent': none of the 3 right answers says anything") as refused:
        score(tmp_path / "refused", vocabulary, records)
    assert "the label selects no choice: 3" in str(refused.value)
    assert "allow_empty_targets" in str(refused.value)
    prompt = only(score(tmp_path / "allowed", vocabulary, records, allow_empty_targets=True))
    assert (prompt.accuracy, prompt.gold_not_in_choices) == (0.0, 3)
    assert prompt.remarks["the target is <NO LABEL>"] == 3


def test_labels_counted_from_one_are_said(
    vocabulary: Vocabulary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the labels 1 and 2 the first is read as the second choice, the second as none."""
    results = score(tmp_path, vocabulary, [{"label": label} for label in (1, 2, 1, 2, 2)])
    assert only(results).remarks["the label selects no choice"] == 3
    print_results(results, prompts=False)
    said = capsys.readouterr().out
    assert "note: mail validation: the right answer is no choice: 3 of 5 items, under 1 of 1 prompts\n" in said
    assert "note: mail validation: the target is <NO LABEL>: 3 of 5 items, under 1 of 1 prompts\n" in said


def test_rows_of_one_class_are_said(vocabulary: Vocabulary, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Test splits without labels have -1 in every record: the last choice."""
    results = score(tmp_path, vocabulary, [{"label": -1}] * 4)
    assert only(results).majority == 1
    print_results(results, prompts=False)
    said = capsys.readouterr().out
    assert "note: mail validation: the same choice is right everywhere: 4 of 4 items, under 1 of 1 prompts\n" in said
    assert "the label is negative: it counts from the last choice: 4 of 4 items" in said


def test_two_classes_and_known_fields_have_no_remark(vocabulary: Vocabulary, tmp_path: Path) -> None:
    results = score(tmp_path, vocabulary, [{"label": i % 2} for i in range(6)])
    assert only(results).remarks == {}


def test_an_accuracy_of_nothing_is_explained(
    vocabulary: Vocabulary, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scorer that prefers the first choice, where the second is right."""
    scores = lambda model, items, **_: [-np.arange(len(choices), dtype=float) for _, choices in items]  # noqa: E731
    monkeypatch.setattr("t0train.evals.rank.rank_tokens", scores)
    results = score(tmp_path, vocabulary, [{"label": 1}] * 3)
    assert only(results).accuracy == 0
    print_results(results, prompts=False)
    assert "note: mail validation: answered wrongly: 3 of 3 items" in capsys.readouterr().out


def test_targets_that_are_no_choice_are_said_and_scored(
    vocabulary: Vocabulary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As under one of IMDB's published prompts: the text is fine, but no choice."""
    results = score(tmp_path, vocabulary, [{"text": "film"}] * 3, "other words")
    assert (only(results).accuracy, only(results).chance) == (0.0, 0.0)
    print_results(results, prompts=False)
    assert "note: mail validation: the right answer is no choice: 3 of 3 items" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("record", "prompt", "remark"),
    [
        ({"label": 0}, "one option", SINGLE_CHOICE),
        ({"label": 0}, "typing error", "a field that does not exist is printed"),
        ({"label": 0, "answer": None}, "typing error", 'a null is printed as "None"'),
        ({"label": 0, "text": "x " * 1000}, "urgent", "input cut to 1024 tokens"),
    ],
)
def test_odd_items_are_counted(
    record: dict[str, Any], prompt: str, remark: str, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    results = score(tmp_path, vocabulary, [{"label": 1}, record, {"label": 0}], prompt)
    count = 3 if remark in (SINGLE_CHOICE, "a field that does not exist is printed") else 1
    assert only(results).remarks[remark] == count


def test_written_answers_that_say_nothing(
    vocabulary: Vocabulary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"prompt 'write': none of the 2 right answers says anything"):
        score(tmp_path / "refused", vocabulary, [{"answer": ""}, {"answer": None}], "write")
    results = score(tmp_path / "some", vocabulary, [{"answer": ""}, {"answer": "red"}], "write")
    print_results(results, prompts=False)
    assert "note: mail validation: the right answer says nothing: 1 of 2 items" in capsys.readouterr().out
