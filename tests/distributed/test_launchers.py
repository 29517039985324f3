"""Runs of two processes under launchers that are not ours, and what these say after bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from t0train.cli.main import main
from tests.distributed.helpers import ENVIRONMENT, free_port
from tests.training.helpers import steps_of

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
MODULE = "t0train"
LAUNCHERS = {
    "torchrun": ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", MODULE),
    "torch.distributed.launch": ("torch.distributed.launch", "--standalone", "--nproc-per-node=2", "-m", MODULE),
    "accelerate": (
        "accelerate.commands.accelerate_cli",
        *("launch", "--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no"),
        *("--dynamo_backend=no", "--main_process_port={port}", "--module", MODULE),
    ),
    "deepspeed": (
        "deepspeed.launcher.launch",
        # {"localhost": [0, 1]}
        *("--world_info=eyJsb2NhbGhvc3QiOiBbMCwgMV19", "--master_addr=127.0.0.1", "--master_port={port}"),
        *("--module", MODULE),
    ),
}


def launch(launcher: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [part.format(port=free_port()) for part in LAUNCHERS[launcher]]
    return subprocess.run(
        [sys.executable, "-m", *command, "train", *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_share_a_run(launcher: str, world: Path, tmp_path: Path) -> None:
    settings = ("train.steps=2", "train.batch.rows=4", "train.canary=false", "train.strategy=ddp")
    ended = launch(launcher, str(world / "run.yaml"), f"output={tmp_path / 'run'}", *settings)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("2 steps done; last loss") == 1, "one process speaks for both"
    assert len(steps_of(tmp_path / "run")) == 2


def test_torchrun_repeats_our_sentence_at_the_end(tmp_path: Path) -> None:
    ended = launch("torchrun", "no_such_run", f"output={tmp_path / 'run'}")
    assert ended.returncode == 1
    *_, report = ended.stderr.split("Root Cause (first observed failure)")
    assert "error: no file no_such_run, and no such name in" in report


def test_the_reason_is_written_where_torchrun_reads_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    monkeypatch.setattr(sys, "argv", ["t0train", "train", "no_such_run"])
    with pytest.raises(SystemExit):
        main()
    reason = json.loads((tmp_path / "error.json").read_text())["message"]
    assert reason["message"].startswith("error: no file no_such_run")
    assert int(reason["extraInfo"]["timestamp"]) > 0
