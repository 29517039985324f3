"""Records: what is written is read again as it was; what is not a record is refused by file and key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from t0train.core.errors import UserError
from t0train.results import EvalResults, EvaluatedModel, read_record
from t0train.results.results_json import GeneratedPromptScore, GeneratedScore, Missing, RankedPromptScore, RankedScore

SPREAD: dict[str, Any] = {
    **{"records": 9, "median": 0.1 + 0.2, "mean": 1 / 3, "min": 0.0, "max": 1.0},
    **{"interval": (0.25, 0.5), "iqr": (0.125, 0.75), "mean_interval": (0.2, 0.4)},
}
PROMPT: dict[str, Any] = {"name": "p", "task": "d_p", "records": 9, "interval": (0.25, 0.5)}
RESULTS = EvalResults(
    model=EvaluatedModel(name="small", step=3, run="0a"),
    suite="demo",
    source="data",
    limit=9,
    seed=-4,
    tasks=(
        RankedScore(
            dataset="d",
            split="test",
            chance=0.5,
            majority=2 / 3,
            prompts=(RankedPromptScore(accuracy=1 / 3, chance=0.5, majority=2 / 3, gold_not_in_choices=0, **PROMPT),),
            **SPREAD,
        ),
    ),
    generated=(
        GeneratedScore(
            dataset="e",
            split="test",
            metric="bleu",
            prompts=(GeneratedPromptScore(score=1 / 7, metrics={"bleu": 1 / 7}, **PROMPT),),
            **SPREAD,
        ),
    ),
    missing=(Missing(dataset="f", split="test", reason="no folder f"),),
)


def written(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({**RESULTS.as_json(), **changes}))
    return path


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Every float with all its bits, tuples as tuples."""
    path = written(tmp_path / "results.json")
    assert read_record(EvalResults, path) == RESULTS
    assert json.loads(path.read_text())["schema_version"] == 1


def test_keys_of_later_versions_are_ignored(tmp_path: Path) -> None:
    assert read_record(EvalResults, written(tmp_path / "results.json", news=[1])) == RESULTS


@pytest.mark.parametrize("version", [2, 10])
def test_a_later_layout_is_refused(version: int, tmp_path: Path) -> None:
    path = written(tmp_path / "results.json", schema_version=version)
    with pytest.raises(UserError, match=rf"results\.json was written by a later t0train: schema_version is {version},"):
        read_record(EvalResults, path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"schema_version": 0}, "schema_version: .*found 0"),
        ({"schema_version": "1"}, "schema_version: .*found '1'"),
        ({"seed": 0.5}, "seed: .*found 0.5"),
        ({"limit": True}, "limit: .*found True"),
        ({"tasks": {}}, "tasks: "),
        ({"tasks": [{}]}, r"tasks\.0\.records: missing"),
        ({"not_held_out": {"d": {"kind": "word", "sentence": ""}}}, r"not_held_out\.d\.kind: .*found 'word'"),
    ],
)
def test_the_wrong_key_is_named(changes: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"results\.json is not what t0train writes: .*{problem}"):
        read_record(EvalResults, written(tmp_path / "results.json", **changes))


@pytest.mark.parametrize("median", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_figure_that_cannot_be_is_not_written(median: float) -> None:
    with pytest.raises(ValidationError, match="median"):
        RankedScore(**{**dict(RESULTS.tasks[0]), "median": median})
