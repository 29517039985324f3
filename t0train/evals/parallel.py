"""Several processes answer the tasks of a suite, each with its own copy of the model, and leave the answers in files.

The evaluation that follows finds every answer in its file: it is the same one, whoever has done the work.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, NamedTuple

from t0train.core.console import progress
from t0train.core.errors import UserError
from t0train.core.processes import follow_parent, no_interrupts_for_children
from t0train.evals.datasets import Job, build_jobs
from t0train.evals.models import open_model, open_vocabulary
from t0train.evals.prediction_cache import Answerer


@dataclass(frozen=True)
class Work:
    """What a process must know to do a part of an evaluation.

    Attributes:
        model: run folder, checkpoint, exported folder or hub id.
        untrained: the run's model as it was before step 1.
        options: suite, source and so on, as for `build_jobs`.
        answers: folder of the answers.
        processes: how many share the work.
    """

    model: str
    untrained: bool
    options: Mapping[str, Any]
    answers: Path
    processes: int


class _Unit(NamedTuple):
    """One task: a prompt (its place among all of the job) of a dataset (its place among all jobs)."""

    items: int
    job: int
    prompt: int


def answer_in_processes(work: Work) -> None:
    """Answer all tasks of a suite that are not answered yet; the largest are begun first.

    Raises:
        UserError: as `evaluate`; or a process died, e.g. as memory ran out. What was answered until then is kept.
    """
    jobs, _ = build_jobs(
        open_vocabulary(work.model, work.untrained), **work.options
    )  # fills the token store, before all read it
    units = sorted(
        (_Unit(len(rows), j, k) for j, job in enumerate(jobs) for k, rows in enumerate(job.rows) if len(rows)),
        reverse=True,
    )
    context = get_context("spawn")
    started: Synchronized[int] = context.Value("i", 0)
    executor = ProcessPoolExecutor(min(work.processes, len(units)), context, _set_up, (work, started))
    try:
        with no_interrupts_for_children():
            answers = [executor.submit(_answer, unit) for unit in units]
        with progress("answer", sum(unit.items for unit in units), "items") as advance:
            for done in as_completed(answers):
                advance(done.result())
    except (BrokenProcessPool, BrokenPipeError) as error:  # the latter if it dies while it is being started
        raise UserError(
            f"one of the {work.processes} processes died, perhaps as memory ran out; its answers until then are in "
            f"{work.answers}: run the command again, with fewer processes (--nproc)."
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


_work: Work


def _set_up(work: Work, started: Synchronized[int]) -> None:
    """Begin a process: it gets its share of the cores, or the next GPU."""
    import torch

    follow_parent()
    global _work
    _work = work
    with started.get_lock():
        index = started.value
        started.value += 1
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // work.processes))
    if torch.cuda.is_available():
        torch.cuda.set_device(index % torch.cuda.device_count())


@cache
def _opened() -> tuple[Answerer, list[Job]]:
    """The model and the jobs of this process, opened with its first unit, so that errors reach the parent."""
    subject = open_model(_work.model, _work.untrained)
    jobs, _ = build_jobs(subject.vocabulary, **_work.options)
    return Answerer(subject.model, subject.vocabulary, _work.answers), jobs


def _answer(unit: _Unit) -> int:
    """Answer one task into its file; returns the number of its items."""
    answerer, jobs = _opened()
    job = jobs[unit.job]
    if job.ranked:
        answerer.scores(job.ranked[unit.prompt], _quiet)
    else:
        prompt = job.texts[unit.prompt]
        answerer.texts(prompt.task.name, prompt.inputs, job.entry.asked.max_new_tokens, _quiet)
    return unit.items


def _quiet(amount: float) -> None:
    """The parent shows the progress."""
