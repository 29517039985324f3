"""Runs and published results; what else evaluations found."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from t0train.report.sections.published import published_on, published_results
from tests.report.conftest import WriteRun, cells, markdown, results, section

CSV = Path(__file__).resolve().parents[3] / "t0train" / "report" / "sections" / "published.csv"


def test_published_values_are_listed_with_ours_and_say_where_they_are_from(write_run: WriteRun, tmp_path: Path) -> None:
    """Read: T0's card on CrowS-Pairs, 59.2 and 83.8. Recalled: T0's 33.58 and 33.65 on HellaSwag, of the appendix."""
    run = write_run(suites={"demo": results({"crows_pairs": [0.5], "hellaswag": [0.3], "movies": [0.5]})})
    text = section(markdown([run], tmp_path / "out"), "Published results")
    ours = cells(text, "crows_pairs", "demo")
    assert [ours[2], *ours[3:5], ours[6]] == ["this report", "1", "50.0 [47.0, 53.0]", "200 records of test[:200]"]
    read = cells(text, "crows_pairs", "T0")
    assert (read[2], read[4:6]) == ("as published", ["83.8", "59.2"])
    recalled = cells(text, "hellaswag", "T0", "recalled, not read")
    assert recalled[4:6] == ["33.6", "33.6"]
    assert "not zero-shot" in cells(text, "hellaswag", "T0p", "recalled, not read")[-1]
    assert "movies" not in text


def test_what_is_recalled_is_never_shown_as_published() -> None:
    rows = list(csv.DictReader(CSV.open()))
    recalled = {row["model"] for row in rows if row["read"] == "no"}
    assert recalled == {"T5+LM", "T0", "T0p", "T0pp", "T0_3B", "T0_single_prompt", "T0_original_task_only"}
    assert {row["read"] for row in rows if "appendix" in row["source"]} == {"no"}
    for found in published_results():
        assert (found.standing == "as published") == ("model card" in found.source)
    assert len({row.model for row in published_on("wino_bias/type1_pro", "wino_bias/type1_anti")}) == 6
    assert Counter(row["statistic"] for row in rows).keys() == {"mean", "median"}
    assert all(0 < abs(float(row["value"])) < 100 for row in rows)


LEFT_OUT = {
    "anli r1-r3 average": "the suite has the three rounds, each by itself",
    "average of the nine columns": "an average over other columns than the suite's eleven",
}
RETRAINED = "T5-xxl-lm-adapt retrained on P3 T0 split, 20k steps, batch 2048, Adafactor 1e-3"
OUR_NAMES = {  # of the specification's table
    RETRAINED: "T5-xxl-lm-adapt retrained by HINT",
    "super_glue/axg (WinoGender)": "super_glue/axg",
    "hellaswag (prompt without instructions)": "hellaswag",
    "wino_bias/type1_pro_minus_anti": "wino_bias/type1_pro - wino_bias/type1_anti",
    "wino_bias/type2_pro_minus_anti": "wino_bias/type2_pro - wino_bias/type2_anti",
    "median of the 9 other prompts": "median",
    "no (recalled)": "no",
}


def test_all_figures_of_the_specification_are_there() -> None:
    """Each once, with what is known of its standing, but for averages that have no counterpart among our datasets."""
    path = Path(__file__).resolve().parents[4] / "shared" / "spec" / "published-results.csv"
    ours = list(csv.DictReader(CSV.open()))
    assert len(ours) == 291
    if not path.is_file():
        pytest.skip(f"no {path}")
    rows = [row for row in csv.DictReader(path.open()) if row["dataset"] not in LEFT_OUT]
    columns = ("model", "dataset", "statistic", "value", "num_prompts", "seen_in_text")
    expected = Counter(tuple(OUR_NAMES.get(row[column], row[column]) for column in columns) for row in rows)
    found = Counter(
        (
            row["model"],
            f"{row['dataset']} - {row['minus']}" if row["minus"] else row["dataset"],
            *(row[column] for column in ("statistic", "value", "prompts", "read")),
        )
        for row in ours
    )
    assert found == expected


def test_figures_of_other_prompts_do_not_hide_each_other() -> None:
    medians = [row.median for row in published_on("hellaswag") if (row.model, row.source[-9:]) == ("T0", "section 7")]
    assert sorted(median for median in medians if median is not None) == pytest.approx([0.3365, 0.5793])


def generated(dataset: str, caveat: str) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "split": "test",
        "metric": "contains",
        "records": 9,
        "median": 0.7,
        "interval": [0.6, 0.8],
        "mean": 0.71,
        "mean_interval": [0.61, 0.81],
        **{"min": 0.7, "max": 0.7, "iqr": [0.7, 0.7]},
        "metrics": {"contains": {"median": 0.7, "mean": 0.71}, "bleu": {"median": 0.12, "mean": 0.12}},
        "metric_baselines": {"contains": {"constant": 0.33}, "bleu": {"constant": 0.01}},
        "prompts": [
            {"name": "p", "task": "t", "records": 9, "score": 0.7, "interval": [0.6, 0.8], "metrics": {"bleu": 0.1}}
        ],
        "caveat": caveat,
    }


def test_all_findings_are_told(write_run: WriteRun, tmp_path: Path) -> None:
    document = results({"movies": [0.5, 0.4]})
    document["tasks"][0]["mistakes"] = [
        {"prompt": "prompt 1", "record": 7, "input": "x" * 900 + "y" * 100, "answer": "good", "gold": None}
    ]
    document["generated"] = [generated(f"wino_bias/type1_{side}", "Mind this.") for side in ("pro", "anti")]
    document["differences"] = [
        {
            "name": "WinoBias type 1",
            "of": "wino_bias/type1_pro",
            "minus": "wino_bias/type1_anti",
            **{"items": 9, "mean": 0.05, "mean_interval": [-0.01, 0.11], "median": 0.06, "median_interval": [0.0, 0.1]},
        }
    ]
    document["probes"] = [{"name": "sentiment", "input": "Is it good?", "output": "yes"}]
    document["missing"] = [{"dataset": "mail", "split": "test", "reason": "no folder mail"}]
    sentence = "movies is not held out: other records of it are trained on"
    document["not_held_out"] = {"movies": {"kind": "dataset", "sentence": sentence}}
    text = markdown([write_run(suites={"demo": document})], tmp_path / "out")
    assert cells(section(text, "Generated answers"), "wino_bias/type1_pro", "test", "demo")[3:] == [
        *("contains", "1", "9", "70.0 [60.0, 80.0]", "71.0 [61.0, 81.0]", "33.0", "contains 70.0, bleu 12.0"),
    ]
    assert cells(section(text, "Differences between datasets"), "WinoBias type 1")[4:] == [
        "9",
        "6.0 [0.0, 10.0]",
        "5.0 [-1.0, 11.0]",
    ]
    # the card's difference for T0: mean 6.0, median 9.8
    assert cells(text, "WinoBias type 1", "T0", "as published")[4:6] == ["9.8", "6.0"]
    assert text.count("wino_bias/type1_pro, wino_bias/type1_anti: Mind this.") == 1
    assert cells(section(text, "Answers to look at"), "sentiment")[1:] == ["demo", "Is it good?", "yes"]
    row = cells(section(text, "Mistakes under the worst prompts"), "7")
    assert row[1:] == [f"{'x' * 300} ... {'x' * 200}{'y' * 100}", "good", "(no choice)"]
    assert "demo, demo: mail test: no folder mail" in text
    assert cells(section(text, "Accuracy"), "movies", "test[:200]")[2] == "no"
    assert "demo: movies is not held out: other records of it are trained on." in text


def test_a_suite_of_probes_alone_makes_a_report(write_run: WriteRun, tmp_path: Path) -> None:
    document = {**results({}), "probes": [{"name": "sentiment", "input": "Is it good?", "output": "yes"}]}
    assert "Is it good?" in markdown([write_run(suites={"demo": document})], tmp_path / "out")


def test_a_comparison_of_checkpoints_is_shown(write_run: WriteRun, tmp_path: Path) -> None:
    run = write_run(suites={"choose": results({"movies": [0.5]})})
    candidates = [
        {"step": step, "score": score, "medians": {"movies": score}} for step, score in ((10, 0.25), (20, 0.5))
    ]
    selection = {
        "suite": "choose",
        "step": 20,
        "candidates": candidates,
        "left_out": {"rte": "held out"},
        "rule": "best",
    }
    (run / "eval" / "choose" / "selection.json").write_text(json.dumps(selection))
    text = section(markdown([run], tmp_path / "out"), "Checkpoints compared")
    assert cells(text, "10")[1:] == ["25.0", "25.0"]
    assert "- Step 20 was selected: best." in text
    assert "- left out: rte: held out" in text
