"""Real runs on one device: every strategy against `single`, over a probe of memory, a checkpoint and a resume."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory

from gpu_findings import EXACT, Finding, Setting

from t0train.config import load_config
from t0train.core.events import read_events
from t0train.data import prepare
from t0train.toy import build_toy
from t0train.training import train

_STEPS, _BREAK = 6, 4
_LIMITS = {"fp32": EXACT, "bf16": 0.01}  # FSDP and DeepSpeed round weights to bf16 that `single` leaves in fp32


def check_training(setting: Setting) -> Iterator[Finding]:
    """Losses of runs on the toy P3 that write checkpoints in the background and are continued from one."""
    with TemporaryDirectory(prefix="gpu_check-") as name:
        folder = Path(name)
        common = _prepare(setting, folder)
        for precision, limit in _LIMITS.items():
            settings = (*common, f"train.precision={precision}")
            straight = _losses(_run("single", folder / "straight", _STEPS, settings))
            for strategy in ("single", "ddp", "fsdp", "deepspeed"):
                arm = f"{setting.size}, {strategy} {precision}"
                if strategy == "deepspeed" and not find_spec("deepspeed"):
                    yield Finding("run = single's", arm, "skipped: DeepSpeed is not installed")
                    continue
                try:
                    yield _compare(arm, _broken(strategy, folder / "run", settings), straight, limit)
                except Exception as error:  # go on: the other strategies may say why
                    yield Finding("run = single's", arm, f"{type(error).__name__}: {error}", False)
                rmtree(folder / "run", ignore_errors=True)
            rmtree(folder / "straight")


def _prepare(setting: Setting, folder: Path) -> tuple[str, ...]:
    """The toy P3 in a folder, and the overrides with which the toy run finds it."""
    build_toy(folder / "p3")
    data = (
        f"data.source={folder / 'p3' / 'data'}",
        f"data.store={folder / 'store'}",
        f"data.vocabulary={folder / 'p3' / 'spiece.model'}",
        f"data.catalogue={folder / 'p3' / 'catalogue.csv'}",
        f"data.templates=[{folder / 'p3' / 'templates'}]",
    )
    prepare(load_config("toy", list(data)), workers=1)
    return (
        *data,
        f"model.size={setting.size}",
        "model.dropout=0.1",
        "optimizer={lr: 0.001, schedule: constant, final_fraction: 0.0}",
        f"train.device={setting.device.type}",
        "train.batch={rows: 8, examples: null, micro_batch_rows: 4}",
    )


def _broken(strategy: str, folder: Path, settings: tuple[str, ...]) -> Path:
    """A run that was broken off and continued, writing checkpoints in the background."""
    settings = (*settings, "train.probe_memory=true", "train.checkpoint={every: 2, asynchronous: true}")
    _run(strategy, folder, _BREAK, settings)
    return _run(strategy, folder, _STEPS, settings)


def _run(strategy: str, folder: Path, steps: int, settings: tuple[str, ...]) -> Path:
    """Train to `steps` steps, or go on until then; returns the run folder."""
    overrides = [*settings, f"train.strategy={strategy}", f"output={folder}", f"train.steps={steps}"]
    if strategy != "deepspeed":
        train(load_config("toy", overrides), notify=lambda remark: None)
        return folder
    # a process of its own: DeepSpeed keeps to the first process group that it sees
    command = [sys.executable, "-m", "t0train", "train", "toy", *overrides]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (our own arguments)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} ended with {ended.returncode}:\n{ended.stderr[-2000:]}")
    return folder


def _losses(run: Path) -> list[float]:
    return [event["loss"] for event in read_events(run / "events.jsonl", "step")]


def _compare(arm: str, run: Path, straight: list[float], limit: float) -> Finding:
    found, events = _losses(run), run / "events.jsonl"
    resumed = [event["step"] for event in read_events(events, "resume")]
    saved = [event["step"] for event in read_events(events, "checkpoint")]
    expected = list(range(2, _STEPS + 1, 2))
    if len(found) != _STEPS or resumed != [_BREAK] or saved != expected:
        return Finding("run = single's", arm, f"{len(found)} steps, resumed at {resumed}, saved {saved}", False)
    worst = max(abs(one - other) / other for one, other in zip(found, straight, strict=True))
    sentence = f"losses {worst:.1e} apart, with a probe of memory and a resume"
    return Finding("run = single's", arm, sentence, math.isfinite(worst) and worst <= limit, worst)
