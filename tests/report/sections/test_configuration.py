"""What is told of the differences between the configurations of runs."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tests.report.conftest import WriteRun, cells, markdown, section

TINY = {"init_from": "random", "size": "tiny"}


def test_keys_that_differ_are_listed(write_run: WriteRun, tmp_path: Path) -> None:
    runs = [
        write_run("one", model=TINY, optimizer={"lr": 0.01}, output="here"),
        write_run("two", model=TINY, seed=7, data={"splits": {"trec": "train[:9]"}}, output="there"),
    ]
    text = section(markdown(runs, tmp_path / "out"), "Runs")
    assert cells(text, "key") == ["key", "one", "two"]
    assert cells(text, "optimizer.lr")[1:] == ["0.01", "0.001"]
    seed = yaml.safe_load((runs[0] / "config.resolved.yaml").read_text())["seed"]
    assert cells(text, "seed")[1:] == [json.dumps(seed), "7"]
    assert cells(text, "data.splits.trec")[1:] == ["-", "train[:9]"]
    table = text.partition("| key |")[2]
    assert not any(f"| {key} |" in table for key in ("name", "output", "model.size"))
    assert len([line for line in table.splitlines() if line.startswith("|")]) == 1 + 3  # the rule below the header


def test_runs_alike_say_so(write_run: WriteRun, tmp_path: Path) -> None:
    runs = [write_run(name, model=TINY) for name in ("one", "two")]
    assert "differ in no key but name and output" in section(markdown(runs, tmp_path / "out"), "Runs")
    assert "differ" not in section(markdown(runs[:1], tmp_path / "alone"), "Runs")


def test_the_table_has_an_end(write_run: WriteRun, tmp_path: Path) -> None:
    splits = {f"dataset{place:02}": "train[:9]" for place in range(32)}
    runs = [write_run("one", model=TINY), write_run("two", model=TINY, data={"splits": splits})]
    text = section(markdown(runs, tmp_path / "out"), "Runs")
    assert text.count("| data.splits.dataset") == 30
    assert "2 further keys differ" in text


def test_runs_say_what_they_start_from(write_run: WriteRun, tmp_path: Path) -> None:
    runs = [write_run("one", model=TINY), write_run("two", model={"init_from": "google/t5-small-lm-adapt"})]
    text = section(markdown(runs, tmp_path / "out"), "Runs")
    assert cells(text, "one")[1] == "tiny, random weights"
    assert cells(text, "two")[1] == "google/t5-small-lm-adapt"
