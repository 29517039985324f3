"""Runs compared: only what is the same is subtracted, and the rest is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t0train.core.errors import UserError
from t0train.report import write_report
from t0train.report.run_data import read_items
from t0train.report.sections.comparison import paired
from tests.report.conftest import WriteRun, cells, markdown, results, section

Scores = dict[str, dict[int, float]]
"""By task, by record."""


def scored_run(
    write_run: WriteRun,
    name: str,
    scores: Scores,
    revision: str = "records 1",
    words: str = "vocabulary 1",
    **changes: Any,
) -> Path:
    """A run that was scored on `movies` of the suite `demo`; a prompt's identity is made of its task and `words`."""
    document = {**results({"movies": [0.5] * len(scores)}), **changes}
    (entry,) = document["tasks"]
    entry["revision"] = revision
    for prompt, task in zip(entry["prompts"], scores, strict=True):
        prompt |= {"task": task, "name": f"prompt {task}", "identity": f"{revision}, {task}, {words}"}
    lines = [
        {"dataset": "movies", "split": "test[:200]", "task": task, "record": record, "right": right}
        for task, records in scores.items()
        for record, right in records.items()
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(lines), sink)
    content = sink.getvalue().to_pybytes()
    run = write_run(name, suites={"demo": {"files": {"scores.parquet": sha256(content).hexdigest()}, **document}})
    (run / "eval" / "demo" / "scores.parquet").write_bytes(content)
    return run


def compared(runs: list[Path], out: Path) -> str:
    return section(markdown(runs, out), "Comparison")


def test_two_runs_are_compared_on_what_both_were_scored_on(write_run: WriteRun, tmp_path: Path) -> None:
    """Prompt p: records 0-7, the second run is right once more; q: records 0-3, three times more; r: first run only."""
    first: Scores = {"p": dict.fromkeys(range(8), 0.0) | {99: 1.0}, "q": dict.fromkeys(range(4), 0.0), "r": {0: 1.0}}
    second: Scores = {"p": dict.fromkeys(range(8), 0.0) | {2: 1.0, 98: 0.0}, "q": {0: 1.0, 1: 1.0, 2: 1.0, 3: 0.0}}
    one, two = scored_run(write_run, "one", first), scored_run(write_run, "two", second, limit=9)
    text = compared([one, two], tmp_path / "out")
    row = cells(text, "movies", "test[:200]", "two")
    assert row[3:5] == ["2", "8"]
    mean = 100 * np.mean([1 / 8, 3 / 4])
    assert row[5].startswith(f"{mean:.1f} [")
    assert row[6].startswith(f"{mean:.1f} [")
    assert "scored on at most 9 records of each dataset (seed 0), and on all records (seed 0)" in text
    assert "## Comparison" not in markdown([one], tmp_path / "alone")


def test_a_difference_is_told_from_noise(write_run: WriteRun, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    right = (draw.random(400) < 0.5).astype(float)
    better = np.where(draw.random(400) < 0.2, 1.0, right)
    flipped = np.where(draw.permutation(400) < 20, 1 - right, right)  # 5 % of the answers, at random
    runs = [
        scored_run(write_run, name, {"p": dict(enumerate(values.tolist()))})
        for name, values in (("base", right), ("better", better), ("equal", flipped))
    ]
    text = compared(runs, tmp_path / "out")
    assert cells(text, "movies", "test[:200]", "better")[-1] == "yes"
    assert cells(text, "movies", "test[:200]", "equal")[-1] == "no"
    assert "nothing is corrected for their number" in text


def test_outside_is_said_of_the_median(write_run: WriteRun, tmp_path: Path) -> None:
    """Of three prompts one is wholly better and two are the same: the mean is above 0 for certain, the median is 0."""
    nothing = dict.fromkeys(range(50), 0.0)
    one = scored_run(write_run, "one", {"p": nothing, "q": nothing, "r": nothing})
    two = scored_run(write_run, "two", {"p": dict.fromkeys(range(50), 1.0), "q": nothing, "r": nothing})
    text = compared([one, two], tmp_path / "out")
    assert cells(text, "dataset")[-1] == "median: 0 outside"
    row = cells(text, "movies", "test[:200]", "two")
    assert row[5:] == ["0.0 [0.0, 0.0]", "33.3 [33.3, 33.3]", "no"]


@pytest.mark.parametrize(
    ("revisions", "reason"),
    [
        (("records 1", "records 2"), "the records are different ones"),
        (("records 1", ""), "do not say which records were scored"),
        (("", ""), "do not say which records were scored"),
    ],
)
def test_other_records_are_not_paired(
    revisions: tuple[str, str], reason: str, write_run: WriteRun, tmp_path: Path
) -> None:
    runs = [
        scored_run(write_run, name, {"p": {0: 0.0, 1: 1.0}}, revision)
        for name, revision in zip(("one", "two"), revisions, strict=True)
    ]
    text = compared(runs, tmp_path / "out")
    assert f"two and one, demo, not compared: movies: {reason}" in text.replace("results of an earlier version ", "")
    assert "|" not in text


def test_other_ways_to_judge_are_not_paired(write_run: WriteRun, tmp_path: Path) -> None:
    one, two = (scored_run(write_run, name, {"p": {0: 0.0, 1: 1.0}}, words=name) for name in ("one", "two"))
    path = two / "eval" / "demo" / "results.json"
    path.write_text(path.read_text().replace('"revision"', '"normalise": "mean_tokens", "revision"'))
    text = markdown([one, two], tmp_path / "out")
    assert "not compared: movies: answers were judged in different ways" in section(text, "Comparison")
    assert "movies: choices were compared by mean_tokens" in section(text, "Caveats")


def test_a_prompt_of_another_text_is_left_out(write_run: WriteRun, tmp_path: Path) -> None:
    """The same vocabulary, as p shows; the template q has changed."""
    scores: Scores = {"p": {0: 0.0, 1: 1.0}, "q": {0: 0.0, 1: 1.0}}
    one, two = (scored_run(write_run, name, scores) for name in ("one", "two"))
    path = two / "eval" / "demo" / "results.json"
    path.write_text(path.read_text().replace("records 1, q, vocabulary 1", "another text"))
    text = compared([one, two], tmp_path / "out")
    assert cells(text, "movies", "test[:200]", "two")[3] == "1"
    assert "not compared: movies (prompt q): prompts with other texts" in text


def test_models_of_two_vocabularies_are_paired_by_names(write_run: WriteRun, tmp_path: Path) -> None:
    one, two = (scored_run(write_run, name, {"p": {0: 0.0}, "q": {0: 1.0}}, words=name) for name in ("one", "two"))
    text = compared([one, two], tmp_path / "out")
    assert cells(text, "movies", "test[:200]", "two")[3] == "2"
    assert "paired by their names" in text


def test_a_dataset_of_one_run_only_is_named(write_run: WriteRun, tmp_path: Path) -> None:
    one = scored_run(write_run, "one", {"p": {0: 0.0}})
    two = write_run("two", suites={"demo": results({"mail": [0.5]})})
    text = compared([one, two], tmp_path / "out")
    assert "not compared: movies test[:200], mail test[:200]: only one of the two was scored on it." in text


@pytest.mark.slow
def test_figures_do_not_depend_on_the_hash_seed(write_run: WriteRun, tmp_path: Path) -> None:
    """Sums of floats depend on their order."""
    draw = np.random.default_rng(0)
    scores = [{f"task {k}": dict(enumerate(draw.random(30).tolist())) for k in range(12)} for _ in range(2)]
    runs = [scored_run(write_run, name, some) for name, some in zip(("one", "two"), scores, strict=True)]
    code = (
        "import sys; from pathlib import Path; from t0train.report import read_run\n"
        "from t0train.report.sections.comparison import paired\n"
        "read = lambda run: read_run(Path(run)).items('demo')\n"
        "one, two = (read(run)['movies', 'test[:200]'] for run in sys.argv[1:])\n"
        "print(repr(paired(one, two, 0)))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code, *map(str, runs)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(told) == 1


def test_nothing_in_common_is_no_difference(tmp_path: Path, write_run: WriteRun) -> None:
    some = np.array([1, 2]), np.array([1.0, 0.0])
    assert paired({"p": some}, {"q": some}, 0) is None
    assert paired({"p": some}, {"p": (np.array([3]), np.array([1.0]))}, 0) is None
    one, two = (scored_run(write_run, name, {"p": {record: 1.0}}) for name, record in (("one", 1), ("two", 2)))
    assert "not compared: movies: no record is common to both" in compared([one, two], tmp_path / "out")
    (one / "eval" / "demo" / "scores.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match=r"scores\.parquet is damaged"):
        read_items(one / "eval" / "demo", {"scores.parquet": sha256(b"PAR1 no").hexdigest()})


def test_a_scores_file_of_another_evaluation_is_refused(write_run: WriteRun, tmp_path: Path) -> None:
    one, two = (scored_run(write_run, name, {"p": {1: 1.0, 2: right}}) for name, right in (("one", 1.0), ("two", 0.0)))
    assert "points more than one" in compared([one, two], tmp_path / "out")
    own, foreign = (run / "eval" / "demo" / "scores.parquet" for run in (one, two))
    own.write_bytes(foreign.read_bytes())
    with pytest.raises(UserError, match=r"one/eval/demo/scores\.parquet is not the file that .*other SHA-256"):
        write_report([one, two], tmp_path / "refused")
    own.unlink()
    with pytest.raises(UserError, match=r"scores\.parquet is missing, but the results\.json in its folder names it"):
        write_report([one, two], tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_a_scores_file_that_results_do_not_name_is_refused(write_run: WriteRun, tmp_path: Path) -> None:
    one, two = (scored_run(write_run, name, {"p": {1: 1.0}}) for name in ("one", "two"))
    path = two / "eval" / "demo" / "results.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "files"}))
    with pytest.raises(
        UserError, match=r"two/eval/demo/scores\.parquet is not named by the results\.json in its folder"
    ):
        write_report([one, two], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("scores", [{1: float("nan")}, {1: -0.5}, {1: 1e9}, {-1: 1.0}])
def test_absurd_scores_are_named(scores: dict[int, float], write_run: WriteRun, tmp_path: Path) -> None:
    one, two = scored_run(write_run, "one", {"p": scores}), scored_run(write_run, "two", {"p": {1: 1.0}})
    with pytest.raises(UserError, match=r"scores\.parquet is damaged: scores are between 0 and 1"):
        write_report([one, two], tmp_path / "out")


def test_one_run_twice_is_refused(write_run: WriteRun, tmp_path: Path) -> None:
    run = write_run()
    with pytest.raises(UserError, match="given twice"):
        write_report([run, run.parent / "." / run.name / ".." / run.name], tmp_path / "out")
    assert not (tmp_path / "out").exists()
