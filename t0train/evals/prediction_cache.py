"""A model's predictions, each prompt's kept in a file as soon as they are complete: nothing is computed twice.

A killed evaluation continues from the files, and several processes share the work by writing them. The name of a file
is made of everything that decides its content: the model's weights, its inputs, and how they are scored. The file holds
a checksum of its name and its predictions: one that was damaged, edited or renamed is not used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from t0train.core.console import say
from t0train.core.files import write_atomic
from t0train.core.hashing import content_hash
from t0train.model import T5

P = TypeVar("P")

SCORER_VERSION = 2
"""Raise it with every change after which the same weights give other scores or texts: of ranking (what is summed, where
inputs and choices are cut), of the model's arithmetic, of decoding, or of the files. Earlier predictions are then
computed again."""


class PredictionCache:
    """The predictions of one model.

    Attributes:
        model: whose predictions they are.
        folder: where they are kept, perhaps with those of other models; None keeps nothing.
    """

    def __init__(self, model: T5, folder: Path | None = None) -> None:
        self.model, self.folder = model, folder

    @cached_property
    def fingerprint(self) -> str:
        """Content hash of the model's architecture and weights."""
        return fingerprint(self.model)

    def get(
        self,
        task: str,
        key: Sequence[Any],
        fits: Sequence[Callable[[Any], bool]],
        compute: Callable[[], list[P]],
        advance: Callable[[float], object],
    ) -> list[P]:
        """The predictions for a task, from its file if it has one, else computed and kept.

        Args:
            task: of dataset and prompt together; begins the file's name.
            key: all that decides the predictions but the weights.
            fits: the check that the prediction for each item must pass if it is read.
            compute: makes the predictions, as values that JSON can hold; reports its progress itself.
            advance: called with the number of items that need not be computed.
        """
        if self.folder is None:
            return compute()
        path = self.folder / self.fingerprint / f"{task[:100]}-{content_hash([SCORER_VERSION, *key])}.json"
        kept = _read(path, fits)
        if kept:
            advance(len(kept))
            return kept
        predictions = compute()
        content = {"task": task, "predictions": predictions, "checksum": _checksum(path, predictions)}
        write_atomic(path, json.dumps(content, ensure_ascii=False))
        return predictions


def fingerprint(model: T5) -> str:
    """Content hash of a model's architecture and weights."""
    digest = blake2b(json.dumps(model.config.to_json(), sort_keys=True).encode(), digest_size=16)
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _read(path: Path, fits: Sequence[Callable[[Any], bool]]) -> list[Any] | None:
    """The predictions in a file; None if they are not all there, which is reported if there is a file."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found, checksum = content["predictions"], content["checksum"]
        is_whole = isinstance(found, list) and checksum == _checksum(path, found)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        is_whole = False
    if is_whole and len(found) == len(fits) and all(fit(one) for fit, one in zip(fits, found, strict=True)):
        return cast(list[Any], found)
    say(f"{path} is damaged or was edited: its predictions are computed again.")
    return None


def _checksum(path: Path, predictions: Sequence[Any]) -> str:
    """Of the predictions and of what they belong to: weights and inputs, which make the path."""
    return content_hash([path.parent.name, path.name, predictions], length=32)
