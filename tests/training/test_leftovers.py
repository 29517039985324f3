"""Whatever ends `train` at whatever moment: the next start removes what it left half-written.

T0TRAIN_LEFTOVER_KILLS sets another number of kills.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from t0train.checkpoint import read_manifest
from t0train.core.run_folder import list_checkpoints
from tests.distributed.forks import Forked
from tests.training.helpers import steps_of

KILLS = int(os.environ.get("T0TRAIN_LEFTOVER_KILLS", "6"))


def half_written(run: Path) -> list[Path]:
    """Everything with a hidden name, but for the lock and torch's index; while the run goes on some may vanish."""
    found = (Path(parent, name) for parent, folders, files in os.walk(run) for name in (*folders, *files))
    return [path for path in found if path.name.startswith(".") and path.name not in (".lock", ".metadata")]


def stop_at_moment(chance: random.Random, process: Forked, run: Path) -> bool:
    """Stop the process while it starts, trains, or has something half-written; whether it has."""
    what = chance.choice(["starting", "training", "writing", "writing"])
    deadline = time.monotonic() + (chance.uniform(0, 4) if what == "starting" else 60)
    before = set(half_written(run))
    while time.monotonic() < deadline and process.poll() is None:
        if what == "training" and (run / "events.jsonl").exists() and chance.random() < 0.05:
            break
        if what == "writing" and not set(half_written(run)) <= before:
            os.killpg(process.pid, signal.SIGSTOP)
            if not set(half_written(run)) <= before:
                break
            os.killpg(process.pid, signal.SIGCONT)  # it was finished in between
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGSTOP)
    return not set(half_written(run)) <= before


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="kills by process number need Linux")
def test_the_next_start_removes_what_a_killed_one_left(world: Path, tmp_path: Path) -> None:
    run, chance, interrupted = tmp_path / "run", random.Random(1), 0
    arguments = ["train", str(world / "run.yaml"), f"output={run}"]
    many = [*arguments, "train.steps=100000", "train.checkpoint={every: 3, keep: 1, minutes: 0.001}"]
    for number in range(KILLS):
        process = Forked(many, 1)
        interrupted += stop_at_moment(chance, process, run)
        os.killpg(process.pid, signal.SIGTERM if number % 3 == 2 else signal.SIGKILL)
        os.killpg(process.pid, signal.SIGCONT)
        process.communicate(timeout=120)
        for checkpoint in list_checkpoints(run / "checkpoints"):
            read_manifest(checkpoint)
    steps = len(steps_of(run)) + 1
    process = Forked([*arguments, f"train.steps={steps}"], 1)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert half_written(run) == []
    assert [event["step"] for event in steps_of(run)] == list(range(1, steps + 1))
    assert interrupted, "some kills came while something was half-written"
