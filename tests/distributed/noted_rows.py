"""Which rows a process really learns from: noted where its engine is given them, beside what the stream holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import blake2b
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor

from t0train.config import RunConfig
from t0train.data import LoaderState, RowBatch, RowPlan, open_loader
from t0train.model import Batch
from t0train.training import StepMetrics, Trainer

Rows = list[tuple[int, str]]  # identity of a row and a hash of all that is on it


def learned_rows(batch: Batch) -> Rows:
    """The rows of a micro-batch that have something to learn from."""
    names = ("input_ids", "input_segments", "decoder_input_ids", "labels", "target_segments", "target_sources")
    contents = torch.cat([getattr(batch, name) for name in names], dim=1)
    return [
        (int(row_id), blake2b(content.numpy().tobytes(), digest_size=8).hexdigest())
        for row_id, content, labels in zip(batch.row_ids, contents, batch.labels, strict=True)
        if (labels > 0).any()
    ]


def noting(step: Callable[[Trainer, RowBatch, RowPlan, float], StepMetrics]) -> Callable[..., StepMetrics]:
    """`Trainer.step` that adds a line for each step to `rows-<rank>.jsonl` of the run folder."""

    def noted_step(trainer: Trainer, rows: RowBatch, plan: RowPlan, waited: float = 0.0) -> StepMetrics:
        engine = trainer.engine
        backward, learned = engine.backward, Rows()

        def noted_backward(batch: Batch, denominator: float, is_last: bool) -> Tensor:
            learned.extend(learned_rows(batch))
            return backward(batch, denominator, is_last)

        engine.backward = noted_backward  # type: ignore[method-assign]
        try:
            metrics = step(trainer, rows, plan, waited)
        finally:
            del engine.backward
        with (trainer.folder.path / f"rows-{engine.world.rank}.jsonl").open("a") as stream:
            stream.write(json.dumps(learned) + "\n")
        return metrics

    return noted_step


def rows_by_step(run: Path, processes: int) -> list[Rows]:
    """What the processes of a run have noted, together."""
    noted = [(run / f"rows-{rank}.jsonl").read_text().splitlines() for rank in range(processes)]
    return [
        [(row_id, content) for line in lines for row_id, content in json.loads(line)]
        for lines in zip_longest(*noted, fillvalue="[]")
    ]


def rows_of_stream(config: RunConfig, steps: int) -> list[Rows]:
    """The rows of the run's first steps, read one step after the other by this process alone."""
    stream, state, found = open_loader(config, verify=False), LoaderState(), []
    for _ in range(steps):
        plan = stream.plan(state, config.train.batch.rows, config.train.batch.examples)
        found.append(learned_rows(Batch.from_rows(stream.read(plan))))
        state = plan.after
    return found
