"""Files that are JSON but not what t0train writes: one message that names file and key, and nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from t0train.core.errors import UserError
from t0train.report import write_report
from tests.report.conftest import WriteRun, results, step_event


@pytest.mark.parametrize(
    ("file", "content", "key"),
    [
        ("eval/demo/results.json", "[]", "mapping of keys"),
        ("eval/demo/results.json", "null", "mapping of keys"),
        ("eval/demo/results.json", "{}", "tasks: missing"),
        (
            "eval/demo/results.json",
            '{"model": {}, "seed": 0, "tasks": [{"dataset": "x"}]}',
            r"tasks\.0\.median: missing",
        ),
        ("eval/demo/results.json", '{"model": {}, "seed": 0, "tasks": [], "limit": "all"}', "limit: .*'all'"),
        ("eval/demo/selection.json", "{}", "candidates: missing"),
        ("deviations.json", "{}", "list"),
        ("deviations.json", "[{}]", r"0\.sentence: missing"),
        ("events.jsonl", '{"kind": "step"}\n', "line 1 .*step: missing"),
        ("events.jsonl", f"{json.dumps(step_event(1, {}))}\n[]\n", "line 2 is no event"),
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


def test_what_later_versions_add_is_no_error(write_run: WriteRun, tmp_path: Path) -> None:
    document = {**results({"movies": [0.5]}), "news": 1}
    document["tasks"][0]["prompts"][0]["news"] = {}
    run = write_run(suites={"demo": document}, events=[{"kind": "news"}, step_event(1, {"a": 1}, news=1)])
    assert write_report([run], tmp_path / "out").is_file()
