"""Run in several processes: train, and let one of them fail, hang or be killed at a step."""

from __future__ import annotations

import os
import signal
import sys
import time
from types import SimpleNamespace

import torch

import t0train.training.callbacks
import t0train.training.run
from t0train.cli.main import main
from t0train.core.errors import UserError
from t0train.optim.adafactor import local
from t0train.training import Trainer
from t0train.training.setup import build_trainer

torch.set_num_threads(1)
how, step, rank = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
take_step = Trainer.step


def spoiled(self, *arguments, **keywords):  # type: ignore[no-untyped-def]
    is_first_attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    if self.state.step == step and self.engine.world.rank != rank and how == "kill while others sleep":
        time.sleep(1000)  # as a process that waits for its GPU: its own thread says nothing
    if self.state.step == step and self.engine.world.rank == rank and is_first_attempt:
        if how == "bad input":
            raise UserError("this process is unwell")
        if how == "bug":
            raise ZeroDivisionError("a bug in one process")
        if how.startswith("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "term":
            os.kill(os.getpid(), signal.SIGTERM)
        if how == "hang":
            time.sleep(3600)
    done = take_step(self, *arguments, **keywords)
    if self.state.step == step + 1 and self.engine.world.rank == rank and how == "spoil":
        with torch.no_grad():
            local(self.engine.model.shared.weight)[-1, -1] = torch.inf
    return done


def interrupted(*arguments):  # type: ignore[no-untyped-def]
    if how == "term at start" and arguments[3].rank == rank:
        os.kill(os.getpid(), signal.SIGTERM)
    trainer = build_trainer(*arguments)
    if how == "early clock" and trainer.world.rank == rank:
        clock = SimpleNamespace(perf_counter=time.perf_counter, monotonic=lambda: time.monotonic() + 3600)
        vars(t0train.training.callbacks)["time"] = clock
    return trainer


t0train.training.run.build_trainer = interrupted  # type: ignore[attr-defined]
Trainer.step = spoiled  # type: ignore[method-assign]
sys.argv = ["t0train", *sys.argv[4:]]
main()
