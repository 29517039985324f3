"""Which examples share a row: planned from their lengths alone, on both budgets, one window of the order at a time."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from t0train.core.errors import UserError

WINDOW = 1024  # examples; larger windows make batches of one task
METHODS = ("next_fit", "best_fit", "none")

Lengths = Sequence[int] | NDArray[np.integer]


def pack(
    input_lengths: Lengths,
    target_lengths: Lengths,
    max_inputs: int = 1024,
    max_targets: int = 256,
    method: str = "best_fit",
) -> list[NDArray[np.int64]]:
    """Pack the examples of one window onto rows; every example goes onto exactly one.

    Lengths beyond the budgets count as the budget, for that is what trimming leaves.

    Args:
        input_lengths: tokens of each example's input, [examples].
        target_lengths: tokens of each example's target, EOS included, [examples].
        max_inputs: input tokens that a row holds.
        max_targets: target tokens that a row holds.
        method: `next_fit`, the rule of T0's own pipeline (Mesh TensorFlow, transformer/dataset.py): one open row, and
            an example that does not fit on both sides closes it; `best_fit`: best-fit decreasing; `none`: one each.

    Returns:
        For each row the indices of its examples.

    Raises:
        UserError: unknown method or an empty budget.
    """
    if max_inputs < 1 or max_targets < 1:
        raise UserError(f"a row needs room for tokens: max_inputs is {max_inputs} and max_targets is {max_targets}.")
    inputs = np.minimum(input_lengths, max_inputs).tolist()
    targets = np.minimum(target_lengths, max_targets).tolist()
    if method == "next_fit":
        rows = _next_fit(inputs, targets, max_inputs, max_targets)
    elif method == "best_fit":
        rows = _best_fit(inputs, targets, max_inputs, max_targets)
    elif method == "none":
        rows = [[i] for i in range(len(inputs))]
    else:
        raise UserError(f"data.packing is {method!r}; expected one of {', '.join(METHODS)}.")
    return [np.array(row, np.int64) for row in rows]


def _next_fit(inputs: list[int], targets: list[int], max_inputs: int, max_targets: int) -> list[list[int]]:
    rows: list[list[int]] = []
    input_room = target_room = -1
    for i, (need_inputs, need_targets) in enumerate(zip(inputs, targets, strict=True)):
        if need_inputs > input_room or need_targets > target_room:
            rows.append([])
            input_room, target_room = max_inputs, max_targets
        rows[-1].append(i)
        input_room -= need_inputs
        target_room -= need_targets
    return rows


def _best_fit(inputs: list[int], targets: list[int], max_inputs: int, max_targets: int) -> list[list[int]]:
    """Largest example first, each onto the fullest row that still holds it: least input room, then target room."""
    largest = np.maximum(np.array(inputs) / max_inputs, np.array(targets) / max_targets)
    rows: list[list[int]] = []
    open_rows: list[tuple[int, int, int]] = []  # (input room, target room, row), ascending
    for i in np.argsort(-largest, kind="stable").tolist():
        need_inputs, need_targets = inputs[i], targets[i]
        k = bisect_left(open_rows, (need_inputs, need_targets))
        while k < len(open_rows) and open_rows[k][1] < need_targets:
            k += 1
        if k < len(open_rows):
            input_room, target_room, row = open_rows.pop(k)
            rows[row].append(i)
        else:
            input_room, target_room, row = max_inputs, max_targets, len(rows)
            rows.append([i])
        insort(open_rows, (input_room - need_inputs, target_room - need_targets, row))
    return rows
