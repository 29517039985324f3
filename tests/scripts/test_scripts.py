"""The scripts that measure go through all of their code on a CPU, at the smallest sizes. No figure is asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typer

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
SMALL_STEP = ("--rows=2", "--max-inputs=64", "--max-targets=24", "--rounds=1")


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / script), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "140"}
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_gpu_check_says_so_where_there_is_no_gpu() -> None:
    for ended in (
        run("gpu_check.py"),
        subprocess.run(["bash", SCRIPTS / "gpu_check.sh"], capture_output=True, text=True, check=False),
    ):
        assert ended.returncode == 0
        assert ended.stdout.startswith("skipped: no CUDA device")
        assert len(ended.stdout.splitlines()) == 1


@pytest.mark.slow
def test_a_dry_run_of_the_gpu_check_passes(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    sizes = ("--size=tiny", "--speed-size=tiny", "--rows=1", "--max-inputs=48", "--max-targets=16", "--steps=1")
    ended = run("gpu_check.py", "--device=cpu", *sizes, f"--out={out}")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    findings = json.loads(out.read_text())["findings"]
    passed = {(finding["check"], finding["arm"]) for finding in findings if finding["ok"]}
    for attention in ("sdpa", "segment"):
        for precision in ("fp32", "bf16"):
            assert ("states = eager's", f"{attention} {precision}") in passed
            assert ("gradients = eager's", f"{attention} {precision}") in passed
        assert ("packed = alone", f"{attention} bf16") in passed
    for precision in ("fp32", "bf16"):
        for attention in ("sdpa", "eager"):
            for change in ("compiled", "checkpointing block", "checkpointing selective"):
                assert ("gradients = plain ones", f"{attention} {precision}, {change}") in passed
        for strategy in ("single", "ddp", "fsdp", "deepspeed"):
            assert ("run = single's", f"tiny, {strategy} {precision}") in passed
    assert ("updates = the CPU's", "adafactor") in passed
    assert {"memory = estimate", "speed"} <= {finding["check"] for finding in findings}


def test_a_check_that_fails_is_told_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import gpu_check

    def fails(setting: gpu_check.Setting) -> Iterator[gpu_check.Finding]:
        yield gpu_check.Finding("kept", "", "", True)
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(gpu_check, "CHECKS", (fails, gpu_check.check_optimizer))
    out = tmp_path / "found.json"
    with pytest.raises(typer.Exit) as stopped:
        gpu_check.main(device="cpu", size="tiny", speed_size="tiny", out=out)
    assert stopped.value.exit_code == 1
    findings = json.loads(out.read_text())["findings"]
    assert [finding["ok"] for finding in findings] == [True, False, True, True]
    assert "no memory" in findings[1]["value"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("pack", "--examples=2048", "--rounds=1"), "best_fit"),
        (("step", *SMALL_STEP), "segment"),
        (("rank", "--inputs=24", "--items=4", "--rounds=1"), "encoded once"),
    ],
    ids=["pack", "step", "rank"],
)
def test_benchmarks_run(arguments: tuple[str, ...], shown: str) -> None:
    ended = run("bench.py", *arguments)
    assert ended.returncode == 0, ended.stderr
    assert shown in ended.stdout


def test_preparation_is_measured(world: Path) -> None:
    ended = run("bench.py", "prepare", str(world / "run.yaml"))
    assert ended.returncode == 0, ended.stderr
    assert "3 tasks" in ended.stdout


def test_rendering_is_measured(real_data: Path, promptsource_folder: Path) -> None:
    arguments = ("--dataset=super_glue/rte", "--templates=1", "--rows=5", "--rounds=1")
    ended = run("bench.py", "render", f"--source={real_data}", *arguments)
    assert ended.returncode == 0, ended.stderr
    assert "super_glue/rte" in ended.stdout
