"""Results in a run folder are those of this run and of the checkpoint that is meant; runs that differ say so each."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from t0train.config import load_config, run_identity
from t0train.core.errors import UserError
from t0train.report import build_card, read_run, read_runs
from t0train.report.sections.accuracy import accuracy_panels
from tests.report.conftest import WriteRun, cells, markdown, results, section, step_event


def of_step(step: int, accuracy: float, **facts: Any) -> dict[str, Any]:
    document = results({"movies": [accuracy]})
    document["model"] |= {"step": step, **facts}
    return document


def test_card_takes_the_results_of_its_own_checkpoint(write_run: WriteRun) -> None:
    run = write_run(suites={"demo": of_step(200, 0.75), "demo/step-00000100": of_step(100, 0.25)})
    for step, accuracy, other in ((200, "75.0", "25.0"), (100, "25.0", "75.0")):
        text = build_card(run, step, []).text
        assert accuracy in cells(text, "movies", "test[:200]")[4]
        assert f"{other} [" not in text
        assert f"the checkpoint of step {step} was scored" in text
    assert "The checkpoint of step 300 was not evaluated" in build_card(run, 300, []).text


def test_card_leaves_out_results_of_other_weights(write_run: WriteRun) -> None:
    run = write_run(suites={"demo": of_step(200, 0.75, weights="0a")})
    assert "75.0" in build_card(run, 200, [], weights="0a").text
    text = build_card(run, 200, [], weights="0b").text
    assert "75.0" not in text
    assert "The checkpoint of step 200 was not evaluated" in text


def test_results_of_another_run_are_refused(write_run: WriteRun) -> None:
    run, other = write_run(), write_run("other", optimizer={"lr": 0.5})
    own, foreign = (run_identity(load_config(folder / "config.resolved.yaml")) for folder in (run, other))
    assert own != foreign
    path = run / "eval" / "demo" / "results.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(of_step(200, 0.75, run=own)))
    assert read_run(run).results.keys() == {"demo"}
    path.write_text(json.dumps(of_step(200, 0.75, run=foreign)))
    with pytest.raises(UserError, match=r"results\.json holds results of another run .*evaluate again"):
        read_run(run)


def test_results_of_a_replaced_checkpoint_are_refused(write_run: WriteRun) -> None:
    run = write_run()
    manifest = run / "checkpoints" / "step-00000200" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text('{"step": 200}')
    path = run / "eval" / "demo" / "results.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(of_step(200, 0.75, checkpoint=sha256(manifest.read_bytes()).hexdigest())))
    assert read_run(run).results.keys() == {"demo"}
    manifest.write_text('{"step": 200, "trained": "anew"}')
    with pytest.raises(UserError, match="results of another checkpoint of step 200"):
        read_run(run)


def test_a_run_that_went_on_says_so(write_run: WriteRun, tmp_path: Path) -> None:
    run = write_run(suites={"demo": of_step(1, 0.75)}, events=[step_event(step, {"a": 1}) for step in (1, 2)])
    assert "step 1 was scored. The run has been trained on since, to step 2." in markdown([run], tmp_path / "out")


def test_held_out_is_said_of_each_run_alike_in_table_and_figure(write_run: WriteRun, tmp_path: Path) -> None:
    """One run is trained on movies, the second is not, of the third nothing is known."""
    standings = {"one": {"movies": {"kind": "dataset", "sentence": "s"}}, "two": {}, "three": None}
    runs = [
        write_run(name, suites={"demo": {**results({"movies": [0.5]}), "not_held_out": found}})
        for name, found in standings.items()
    ]
    text = section(markdown(runs, tmp_path / "out"), "Accuracy")
    assert [cells(text, "movies", "test[:200]", name)[3] for name in standings] == ["no", "yes", "unknown"]
    [panel] = accuracy_panels(read_runs(runs), "demo")
    assert panel.dataset == "movies (one: not held out; three: held out: unknown)"
    assert "three: what its training shares with the suite was not known" in text


def test_baselines_are_those_of_each_run(write_run: WriteRun) -> None:
    """The second run was scored on fewer records, where the majority class is another share."""
    few = results({"movies": [0.5]}, chance=0.25)
    few["tasks"][0] |= {"records": 10, "majority": 0.9}
    runs = [write_run("one", suites={"demo": results({"movies": [0.5]})}), write_run("two", suites={"demo": few})]
    [panel] = accuracy_panels(read_runs(runs), "demo")
    assert [(box.chance, box.majority) for box in panel.boxes] == [(0.5, 0.525), (0.25, 0.9)]


def test_untrained_under_other_prompts_is_left_out(write_run: WriteRun, tmp_path: Path) -> None:
    trained, untrained = results({"movies": [0.9, 0.8]}), results({"movies": [0.125]})
    run = write_run(suites={"demo": trained, "demo-untrained": untrained})
    text = section(markdown([run], tmp_path / "out"), "Accuracy")
    assert "12.5" not in text
    assert "demo, untrained: evaluated under other prompts of movies, and left out there" in text
