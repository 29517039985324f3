"""Checks before a model is used: that packing keeps examples apart, and that the vocabulary is the model's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from t0train.checkpoint import read_manifest
from t0train.config.architecture import T5Config
from t0train.config.deviations import VOCABULARY
from t0train.core.errors import UserError
from t0train.core.run_folder import MANIFEST
from t0train.data import Vocabulary, refuse_other_vocabulary
from t0train.model.batch import Batch
from t0train.model.t5 import T5

if TYPE_CHECKING:
    from t0train.data import RowBatch

# Largest relative distance of an example's hidden states: rounding alone, with room for deep models
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


@torch.no_grad()
def check_packing(model: T5, rows: RowBatch) -> None:
    """Packing self-check: an example must have the same hidden states on a packed row as alone.

    The row with the most examples is compared with its examples alone, on the model's device, without dropout, through
    the model's attention backend and in the current precision (autocast or not).

    Raises:
        UserError: an example is influenced by its neighbours.
    """
    device = model.shared.weight.device
    row = int(rows.input_segments.max(1).argmax())
    training = model.training
    model.eval()
    try:
        packed = model.decode_states(Batch.from_rows(rows.slice(row, row + 1), device))[0]
        alone = model.decode_states(_one_by_one(rows, row, device))
    finally:
        model.train(training)
    tolerance = _TOLERANCE[packed.dtype]
    for index, source in enumerate(_sources(rows, row)):
        on_row = packed[torch.from_numpy(rows.target_sources[row] == source).to(device)].float()
        by_itself = alone[index, : len(on_row)].float()
        difference = float((on_row - by_itself).norm() / by_itself.norm())
        if not difference <= tolerance:
            raise UserError(
                f"packing is broken: example {index + 1} of row {int(rows.row_ids[row])} gives other hidden states "
                f"than alone (relative distance {difference:.1e}, allowed {tolerance:.0e}) with attention: "
                f"{model.attention}. Training would mix examples up; choose another backend (model.attention: eager "
                "is the reference)."
            )


def check_vocabulary(folder: Path, vocabulary: Vocabulary) -> None:
    """Compare a vocabulary with the one that a model was trained with.

    Args:
        folder: a checkpoint, or a folder in Hugging Face's layout, whose tokenizer files are read if it has any.
        vocabulary: the one that would be used with it.

    Raises:
        UserError: they give different ids, or a checkpoint does not record its vocabulary.
    """
    if not (folder / MANIFEST).is_file():
        refuse_other_vocabulary(vocabulary, folder)
        return
    trained_with = read_manifest(folder, check_files=False).identity.get(VOCABULARY)
    if trained_with != vocabulary.fingerprint:
        raise UserError(
            f"{vocabulary.path} is not the vocabulary that {folder} was trained with (fingerprint "
            f"{vocabulary.fingerprint} instead of {trained_with}; releases of sentencepiece that cut words differently "
            "count as others); put the run's own vocabulary back there, or set data.vocabulary to where it is now."
        )


def check_vocabulary_size(vocabulary: Vocabulary, architecture: T5Config) -> None:
    """Refuse a vocabulary with more pieces than the model's embedding has rows; published T5s have more rows."""
    if vocabulary.size > architecture.vocab_size:
        raise UserError(
            f"the vocabulary {vocabulary.path} has {vocabulary.size:,} pieces, but the model's embedding has "
            f"{architecture.vocab_size:,} rows; use the vocabulary that the model was trained with, or, for a model "
            "with random weights, raise model.vocabulary_size."
        )


def _sources(rows: RowBatch, row: int) -> list[int]:
    """Input segments of a row that have targets, in order."""
    return [int(source) for source in np.unique(rows.target_sources[row]) if source > 0]


def _one_by_one(rows: RowBatch, row: int, device: torch.device) -> Batch:
    """Every example of a row alone on a row, from position 0, padded to the old lengths."""
    sources = _sources(rows, row)

    def spread(values: np.ndarray, keys: np.ndarray) -> Tensor:
        out = np.zeros((len(sources), len(keys)), np.int64)
        for index, source in enumerate(sources):
            own = values[keys == source]
            out[index, : len(own)] = own
        return torch.from_numpy(out).to(device)

    of_input, of_target = rows.input_segments[row], rows.target_sources[row]
    return Batch(
        spread(rows.input_ids[row], of_input),
        spread(of_input, of_input),
        spread(rows.decoder_input_ids[row], of_target),
        spread(rows.labels[row], of_target),
        spread(rows.target_segments[row], of_target),
        spread(of_target, of_target),
        torch.arange(len(sources), device=device),
    )
