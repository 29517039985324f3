"""Rank classification: the score of a choice is the summed log-probability of its tokens, EOS included.

As the original (t5/evaluation and mesh_tensorflow/transformer/utils.py, "score"): float32, no length normalisation, the
first choice wins a tie, inputs without EOS. Unlike it, examples are packed like training rows: every input is encoded
once, and all its choices are target segments of one decoder row that read that input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from t0train.core.errors import UserError
from t0train.data import Vocabulary, build_rows, pack
from t0train.model import T5, Batch, token_scores

Tokens: TypeAlias = NDArray[np.uint16]
Item: TypeAlias = tuple[Tokens, Sequence[Tokens]]  # input without EOS, choices with EOS
Scores: TypeAlias = NDArray[np.float64]

MAX_INPUTS, MAX_TARGETS = 1024, 256  # tokens of an input and of a choice, as in T0's evaluation

_WINDOW = 1024  # pieces that are packed together, as in training
_SHORT_ROW = 256  # inputs shorter than this share a row of about this width
_WIDTH_STEP = 64


@dataclass(frozen=True)
class _Piece:
    """An input with as many of its choices as one decoder row holds."""

    item: int
    inputs: Tokens
    choices: list[int]  # indices into the item's choices
    targets: list[Tokens]

    @property
    def target_length(self) -> int:
        return sum(map(len, self.targets))


def rank(
    model: T5,
    vocabulary: Vocabulary,
    examples: Sequence[tuple[str, Sequence[str]]],
    max_inputs: int = MAX_INPUTS,
    max_targets: int = MAX_TARGETS,
    batch_tokens: int = 8192,
) -> list[Scores]:
    """Score every choice of every example; `scores.argmax()` is the prediction.

    Args:
        model: left in the mode (train or eval) that it was in.
        vocabulary: of the model.
        examples: (input text, choices) pairs; the number of choices may differ.
        max_inputs: longer inputs are cut at the end.
        max_targets: longer choices are cut at the end.
        batch_tokens: input slots that go through the model at once.

    Returns:
        One array [choices] of log-probabilities per example, in the order given.

    Raises:
        UserError: an example without choices or with an empty input, NaN scores.
    """
    inputs = vocabulary.encode_many([text for text, _ in examples])
    flat = vocabulary.encode_many([choice for _, choices in examples for choice in choices])
    targets = iter([np.append(tokens, np.uint16(vocabulary.eos_id)) for tokens in flat])
    items = [(tokens, [next(targets) for _ in choices]) for tokens, (_, choices) in zip(inputs, examples, strict=True)]
    return rank_tokens(model, items, max_inputs, max_targets, batch_tokens)


def rank_tokens(
    model: T5,
    items: Sequence[Item],
    max_inputs: int = MAX_INPUTS,
    max_targets: int = MAX_TARGETS,
    batch_tokens: int = 8192,
    name: Callable[[int], str] = "example {}".format,
    advance: Callable[[float], object] = lambda amount: None,
) -> list[Scores]:
    """`rank` on token ids.

    Args:
        model: as in `rank`.
        items: (input ids without EOS, choices' ids with EOS) pairs.
        max_inputs: as in `rank`.
        max_targets: as in `rank`.
        batch_tokens: as in `rank`.
        name: what to call an item in an error message.
        advance: told after every batch how many items were begun in it.
    """
    pieces = [piece for i, item in enumerate(items) for piece in _pieces(i, item, max_inputs, max_targets, name)]
    rows = _pack(pieces, max_inputs, max_targets)
    scores = [np.full(len(choices), np.nan) for _, choices in items]
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        for some in _batches(rows, batch_tokens):
            for piece, values in zip(_flatten(some), _score(model, some, max_inputs, max_targets, device), strict=True):
                if np.isnan(values).any():
                    _report_nan(model, _flatten(some), max_inputs, max_targets, device, name)
                scores[piece.item][piece.choices] = values
            advance(sum(piece.choices[0] == 0 for piece in _flatten(some)))
    finally:
        model.train(training)
    return [values[_first_equal(choices, max_targets)] for values, (_, choices) in zip(scores, items, strict=True)]


def _pieces(index: int, item: Item, max_inputs: int, max_targets: int, name: Callable[[int], str]) -> list[_Piece]:
    """Trim an item and spread its distinct choices over as few decoder rows as hold them in order."""
    inputs, choices = item
    if not len(choices):
        raise UserError(f"{name(index)} has no choices; rank classification needs at least one.")
    if not len(inputs):
        raise UserError(f"{name(index)} has an empty input; give the model at least one token to read.")
    pieces: list[_Piece] = []
    for k in np.unique(_first_equal(choices, max_targets)).tolist():
        target = choices[k][:max_targets]
        if not pieces or pieces[-1].target_length + len(target) > max_targets:
            pieces.append(_Piece(index, inputs[:max_inputs], [], []))
        pieces[-1].choices.append(k)
        pieces[-1].targets.append(target)
    return pieces


def _first_equal(choices: Sequence[Tokens], max_targets: int) -> NDArray[np.int64]:
    """For each choice the first one with the same (trimmed) tokens: scored once, so that equal choices tie exactly."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(tokens[:max_targets].tobytes(), k) for k, tokens in enumerate(choices)])


def _pack(pieces: Sequence[_Piece], max_inputs: int, max_targets: int) -> list[list[_Piece]]:
    """Rows of pieces of about one length, the longest first, so that memory peaks in the first batch.

    Where a backend works on whole rows, attention costs the square of their width: a row is no wider than its longest
    input needs, or than makes short ones fill it well.
    """
    rows: list[list[_Piece]] = []
    ordered = sorted(pieces, key=lambda piece: -len(piece.inputs))
    for start in range(0, len(ordered), _WINDOW):
        window = ordered[start : start + _WINDOW]
        input_lengths = [len(piece.inputs) for piece in window]
        target_lengths = [piece.target_length for piece in window]
        longest = input_lengths[0]
        width = _width(longest * -(-_SHORT_ROW // longest), max_inputs)
        packed = pack(input_lengths, target_lengths, width, max_targets, method="best_fit")
        rows += [[window[i] for i in row] for row in packed]
    return sorted(rows, key=lambda row: -_input_length(row))


def _batches(rows: Sequence[list[_Piece]], batch_tokens: int) -> Iterator[Sequence[list[_Piece]]]:
    start = 0
    while start < len(rows):
        stop = start + max(1, batch_tokens // _input_length(rows[start]))
        yield rows[start:stop]
        start = stop


def _input_length(row: Sequence[_Piece]) -> int:
    return sum(len(piece.inputs) for piece in row)


def _flatten(rows: Sequence[Sequence[_Piece]]) -> list[_Piece]:
    return [piece for row in rows for piece in row]


def _report_nan(
    model: T5,
    pieces: Sequence[_Piece],
    max_inputs: int,
    max_targets: int,
    device: torch.device,
    name: Callable[[int], str],
) -> NoReturn:
    """NaN spreads along a row (0 x NaN), so score the pieces alone to find the one that gives it."""
    alone = (np.isnan(_score(model, [[piece]], max_inputs, max_targets, device)).any() for piece in pieces)
    culprit = next((piece for piece, bad in zip(pieces, alone, strict=True) if bad), pieces[0])
    raise UserError(
        f"{name(culprit.item)}: the model gives NaN as log-probability, so its weights or its arithmetic are damaged; "
        "check the checkpoint, and use bf16 or fp32 (T5 overflows in fp16)."
    )


def _width(used: int, most: int) -> int:
    """Columns for `used` tokens: in steps, so that few shapes occur."""
    return min(-(-used // _WIDTH_STEP) * _WIDTH_STEP, most)


def _score(
    model: T5, rows: Sequence[Sequence[_Piece]], max_inputs: int, max_targets: int, device: torch.device
) -> list[Scores]:
    """Scores of the choices of each piece, in the order of `_flatten(rows)`."""
    packed = build_rows(
        [[(piece.inputs, piece.targets) for piece in row] for row in rows],
        _width(max(map(_input_length, rows)), max_inputs),
        _width(max(sum(piece.target_length for piece in row) for row in rows), max_targets),
    )
    with torch.inference_mode():
        tokens = token_scores(model, Batch.from_rows(packed, device=device)).double().cpu().numpy()
    segments = int(packed.target_segments.max()) + 1
    cells = np.arange(len(rows))[:, None] * segments + packed.target_segments
    sums = np.bincount(cells.ravel(), weights=tokens.ravel(), minlength=len(rows) * segments)
    sums = sums.reshape(len(rows), segments)
    scores: list[Scores] = []
    for row, row_sums in zip(rows, sums, strict=True):
        ends = np.cumsum([len(piece.choices) for piece in row])
        scores += np.split(row_sums[1 : ends[-1] + 1], ends[:-1])
    return scores
