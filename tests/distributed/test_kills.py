"""Kill -9 at random moments, checkpoint writing included: no step is lost or done twice, and the result is the same.

Of the 50 attempts that are killed 4 are started as users start them, in new interpreters. The others are forks of a
process that has imported everything (see `forks`): importing takes seconds, holds no state of a run and has no way to
harm one, and all that follows it is the same code: the launcher, the processes that meet, the run, the checkpoints.

T0TRAIN_KILLS sets another number of kills.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from t0train.checkpoint import read_manifest
from t0train.core.events import read_events
from t0train.core.run_folder import list_checkpoints
from tests.distributed.forks import Forked
from tests.distributed.helpers import ENVIRONMENT, assert_same_events, assert_same_state
from tests.training.helpers import steps_of

KILLS = int(os.environ.get("T0TRAIN_KILLS", "50"))
IN_NEW_INTERPRETERS = 4
START_S = 180


def start(world: Path, output: Path, *settings: str, is_forked: bool = True) -> Forked | subprocess.Popen[str]:
    """A run of two processes in a process group of its own."""
    common = (f"output={output}", "train.canary=false", "optimizer.lr=0.001")
    arguments = ["train", str(world / "run.yaml"), *common, *settings]
    if is_forked:
        return Forked(arguments, 2)
    return subprocess.Popen(
        [sys.executable, "-m", "t0train", *arguments, "--nproc", "2"],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def children(process: Forked | subprocess.Popen[str]) -> list[int]:
    file = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in file.read_text().split()] if file.exists() else []


def done(run: Path) -> int:
    return len(steps_of(run)) if (run / "events.jsonl").exists() else 0


def half_written(run: Path) -> set[Path]:
    return set(run.glob("checkpoints/.step-*.tmp"))


def wait_for_moment(chance: random.Random, process: Forked | subprocess.Popen[str], run: Path, start_s: float) -> None:
    """Return while the processes start, train or write a checkpoint: at a moment that only chance knows."""
    before, left, what = done(run), half_written(run), chance.choice(["starting", "training", "training", "writing"])
    deadline = time.monotonic() + (chance.uniform(0, start_s) if what == "starting" else START_S)
    further = chance.randint(1, 3)
    while time.monotonic() < deadline and process.poll() is None:
        if done(run) >= before + further and (what == "training" or half_written(run) - left):
            break
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.02 if what == "writing" else 0.3))


def finish(world: Path, run: Path, steps: int) -> None:
    process = start(world, run, "train.strategy=fsdp", f"train.steps={steps}")
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="kills by process number need Linux")
def test_kills_leave_no_trace(world: Path, tmp_path: Path) -> None:
    straight, run = tmp_path / "straight", tmp_path / "run"
    chance = random.Random(0)
    interrupted = 0
    for number in range(KILLS):
        strategy = chance.choice(["fsdp", "fsdp", "fsdp", "ddp"])
        asynchronous = chance.choice(["true", "false"])
        checkpoint = f"train.checkpoint={{every: 1, asynchronous: {asynchronous}}}"
        is_forked = number % -(-KILLS // IN_NEW_INTERPRETERS) > 0
        settings = ("train.steps=100000", f"train.strategy={strategy}", checkpoint)
        process = start(world, run, *settings, is_forked=is_forked)
        wait_for_moment(chance, process, run, start_s=1.5 if is_forked else 8)
        pids = children(process)
        if chance.random() < 0.5 and pids:
            os.kill(chance.choice(pids), signal.SIGKILL)
            process.communicate(timeout=120)
            assert process.returncode == 1
        else:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=120)
            assert process.returncode == -signal.SIGKILL
        for whole in list_checkpoints(run / "checkpoints"):
            read_manifest(whole)  # whenever the kill came
        interrupted += bool(half_written(run))
    steps = done(run) + 2
    finish(world, run, steps)
    finish(world, straight, steps)
    assert [event["step"] for event in steps_of(run)] == list(range(1, steps + 1))
    assert_same_events(run, straight)
    assert_same_state(run, straight, tmp_path)
    assert list(read_events(run / "events.jsonl", "resume")), "some kills came after a step"
    assert interrupted, "some kills came while a checkpoint was written"
