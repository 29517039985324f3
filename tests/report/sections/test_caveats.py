"""What a reader of the figures should know of the examples: remarks, and texts shared with training records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from t0train.core.errors import UserError
from t0train.report import build_card, write_report
from tests.report.conftest import WriteRun, cells, markdown, results, section

REMARKS = "Remarks on prompts"
SHARED = "Texts shared with training records"


def remarked() -> dict[str, Any]:
    """Of four prompts two apply to a part of the 200 records, and three are odd in one way or another."""
    document = results({"movies": [0.5, 0.6, 0.7, 0.8], "mail": [0.5]})
    one, two, three, _ = document["tasks"][0]["prompts"]
    one |= {"records": 50, "remarks": {"empty choice": 2}}
    two |= {"records": 150, "remarks": {"empty choice": 30, "choice cut to 256 tokens": 1}}
    three |= {"gold_not_in_choices": 7}
    return document


def test_remarks_are_counted_over_prompts(write_run: WriteRun, tmp_path: Path) -> None:
    text = section(markdown([write_run(suites={"demo": remarked()})], tmp_path / "out"), REMARKS)
    where = ("movies", "test[:200]")
    assert cells(text, *where, "applies to a part of the records")[3:] == ["2 of 4", "50 to 150 of 200"]
    assert cells(text, *where, "empty choice")[3:] == ["2 of 4", "2 to 30 of 50 to 150"]
    assert cells(text, *where, "choice cut to 256 tokens")[3:] == ["1 of 4", "1 of 150"]
    assert cells(text, *where, "the right answer is no choice")[3:] == ["1 of 4", "7 of 200"]
    assert "| mail" not in text


def test_remarks_of_several_runs_are_said_once(write_run: WriteRun, tmp_path: Path) -> None:
    runs = [write_run(name, suites={"demo": remarked()}) for name in ("one", "two")]
    text = section(markdown(runs, tmp_path / "out"), REMARKS)
    assert cells(text, "movies", "test[:200]", "one, two", "empty choice")
    assert text.count("empty choice") == 1


def test_without_remarks_there_is_no_section(write_run: WriteRun, tmp_path: Path) -> None:
    assert REMARKS not in markdown([write_run(suites={"demo": results({"movies": [0.5]})})], tmp_path / "out")


OVERLAPS = {
    "mixture": "0123abcd",
    "ngram": 13,
    "threshold": 0.2,
    "overlaps": [
        {
            **{
                "dataset": "movies",
                "split": "test[:200]",
                "records": 1200,
                "short": 30,
                "touched": 20,
                "overlapping": 4,
            },
            "sources": {"books": 15, "news": 5},
            "examples": [
                {"record": 7, "share": 0.25, "words": "a dark night", "trained_dataset": "books", "trained_record": 9}
            ],
        }
    ],
    "not_compared": {"bigbench/x": "the examples of BIG-bench are not compared"},
}


def put_overlaps(run: Path, **changes: Any) -> None:
    (run / "eval" / "demo" / "leaks.json").write_text(json.dumps({**OVERLAPS, **changes}))


def test_shared_texts_stand_in_report_and_card(write_run: WriteRun, tmp_path: Path) -> None:
    run = write_run(suites={"demo": results({"movies": [0.5]})}, events=[{"kind": "start", "mixture": "0123abcd"}])
    put_overlaps(run)
    for text in (markdown([run], tmp_path / "out"), build_card(run, 300, []).text):
        shared = section(text, SHARED)
        row = cells(shared, "movies", "test[:200]", "books (15), news (5)")
        assert row[3:] == ["1,200", "30", "20", "4"]
        assert cells(shared, "movies", "7")[2:] == ["a dark night", "books 9", "25%"]
        assert cells(shared, "bigbench/x")[1:] == ["the examples of BIG-bench are not compared"]
        assert "mixture check" not in shared
        assert "check again" not in shared


def test_nothing_is_said_of_records_too_short_to_compare(write_run: WriteRun, tmp_path: Path) -> None:
    run = write_run(suites={"demo": results({"movies": [0.5]})})
    short = {"dataset": "mail", "split": "test", "records": 9, "short": 9, "touched": 0, "overlapping": 0}
    put_overlaps(run, overlaps=[{**short, "sources": {}, "examples": []}])
    shared = section(markdown([run], tmp_path / "out"), SHARED)
    assert cells(shared, "mail")[2:] == ["-", "9", "9", "-", "-"]


def test_what_was_not_checked_is_said(write_run: WriteRun, tmp_path: Path) -> None:
    run = write_run(suites={"demo": results({"movies": [0.5]}), "more": results({"mail": [0.5]})})
    told = "demo: n-gram overlap with demo, more: not checked; run `t0train mixture check RUN --suite demo --ngrams`"
    assert told in markdown([run], tmp_path / "out")
    assert told in build_card(run, 300, []).text


def test_a_check_of_another_mixture_is_said(write_run: WriteRun, tmp_path: Path) -> None:
    run = write_run(suites={"demo": results({"movies": [0.5]})}, events=[{"kind": "start", "mixture": "0123abcd"}])
    put_overlaps(run, mixture="ffff")
    assert "compared with the mixture ffff, but the run is trained on 0123abcd: check again." in markdown(
        [run], tmp_path / "out"
    )


def test_a_damaged_check_is_named(write_run: WriteRun, tmp_path: Path) -> None:
    run = write_run(suites={"demo": results({"movies": [0.5]})})
    put_overlaps(run, overlaps=[{}])
    with pytest.raises(UserError, match=r"leaks\.json .*overlaps\.0\.dataset: missing"):
        write_report([run], tmp_path / "out")
