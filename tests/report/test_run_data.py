"""Files that are JSON but not what t0train writes: one message that names file and key, and nothing written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from t0train.config import RunConfig
from t0train.core.errors import UserError
from t0train.report import write_report
from t0train.report.run_data import RecipeKeys
from tests.report.conftest import WriteRun, results, step_event


@pytest.mark.parametrize(
    ("file", "content", "key"),
    [
        ("eval/demo/results.json", "[]", "mapping of keys"),
        ("eval/demo/results.json", "null", "mapping of keys"),
        ("eval/demo/results.json", "{}", "model: missing; suite: missing; .* and 2 more"),
        (
            "eval/demo/results.json",
            '{"model": {}, "suite": "s", "source": "d", "seed": 0, "tasks": [{"dataset": "x"}]}',
            r"tasks\.0\.median: missing",
        ),
        (
            "eval/demo/results.json",
            '{"model": {}, "suite": "s", "source": "d", "seed": 0, "tasks": [], "limit": "all"}',
            "limit: .*'all'",
        ),
        ("eval/demo/selection.json", "{}", "suite: missing; step: missing; candidates: missing"),
        ("eval/demo/results.json", '{"schema_version": 2}', "written by a later t0train: schema_version is 2"),
        ("eval/demo/results.json", "[" * 100_000, "damaged"),
        ("deviations.json", "{}", "list"),
        ("deviations.json", "[{}]", r"0\.sentence: missing"),
        ("events.jsonl", '{"kind": "step"}\n', "line 1 .*step: missing"),
        ("events.jsonl", f"{json.dumps(step_event(1, {}))}\n[]\n", "line 2 is no event"),
        ("events.jsonl", f"{json.dumps({**step_event(1, {}), 'fill_inputs': -3.0})}\n", r"fill_inputs: .*-3\.0"),
        ("events.jsonl", f"{json.dumps(step_event(-1, {}))}\n", "step: .*-1"),
        ("events.jsonl", f"{json.dumps(step_event(1, {}, rows=0))}\n", "rows: .*0"),
        ("events.jsonl", f"{json.dumps(step_event(10**40, {}))}\n", "step: "),
        ("events.jsonl", '{"a": ' * 100_000 + "\n", "damaged"),
        ("config.resolved.yaml", "[" * 100_000, "nested more than"),
        ("config.resolved.yaml", "train: 3", "train: .*mapping of keys"),
        ("config.resolved.yaml", "- 3", "mapping of keys"),
    ],
)
def test_the_key_is_named(file: str, content: str, key: str, write_run: WriteRun, tmp_path: Path) -> None:
    run = write_run(suites={"demo": results({"movies": [0.5]})})
    (run / file).write_text(content)
    with pytest.raises(UserError, match=rf"{file}.*{key}"):
        write_report([run], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_median_of_text_is_refused(write_run: WriteRun, tmp_path: Path) -> None:
    document = results({"movies": [0.5]})
    document["tasks"][0]["median"] = "0.5"
    with pytest.raises(UserError, match=r"results\.json .*tasks\.0\.median: .*'0\.5'"):
        write_report([write_run(suites={"demo": document})], tmp_path / "out")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.25, 7.0])
@pytest.mark.parametrize("key", ["median", "mean", "chance", "majority", "accuracy"])
def test_accuracies_that_cannot_be_are_refused(key: str, value: float, write_run: WriteRun, tmp_path: Path) -> None:
    document = results({"movies": [0.5]})
    entry = document["tasks"][0]["prompts"][0] if key == "accuracy" else document["tasks"][0]
    entry[key] = value
    with pytest.raises(UserError, match=rf"results\.json .*\.{key}: "):
        write_report([write_run(suites={"demo": document})], tmp_path / "out")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e308, -1e308, 10**400, "fast"])
def test_a_run_that_diverged_has_a_report(value: Any, write_run: WriteRun, tmp_path: Path) -> None:
    """Its loss may be anything; what cannot be drawn is left out of the figures."""
    events = [step_event(1, {"a": 1}), {**step_event(2, {"a": 1}), "grad_norm": value}]
    events.append({"kind": "speed", "step": 1, "tokens_per_s": value})
    assert write_report([write_run(events=events)], tmp_path / "out").is_file()


def test_what_later_versions_add_is_no_error(write_run: WriteRun, tmp_path: Path) -> None:
    document = {**results({"movies": [0.5]}), "news": 1}
    document["tasks"][0]["prompts"][0]["news"] = {}
    run = write_run(suites={"demo": document}, events=[{"kind": "news"}, step_event(1, {"a": 1}, news=1)])
    assert write_report([run], tmp_path / "out").is_file()


def test_keys_that_reports_show_are_keys_of_a_configuration() -> None:
    """What a report reads is forgiving, so a key that was renamed would be shown as not known."""
    check_keys(RecipeKeys, RunConfig)


def check_keys(shown: type[BaseModel], known: type[BaseModel]) -> None:
    assert shown.model_fields.keys() <= known.model_fields.keys()
    for key, field in shown.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            inner = known.model_fields[key].annotation
            assert isinstance(inner, type)
            assert issubclass(inner, BaseModel)
            check_keys(field.annotation, inner)
