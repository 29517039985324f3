"""A model's answers to tasks, each kept in a file as soon as it is complete: nothing is scored twice.

A killed evaluation continues from the files, and several processes share the work by writing them. The name of a file
is made of what decides its content: the model's weights, all that the model is asked, and how it is asked. The file
holds a checksum of its name and its answers: one that was damaged, edited or renamed is not believed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from t0train.core.console import say
from t0train.core.files import write_atomic
from t0train.core.hashing import content_hash
from t0train.data import Vocabulary
from t0train.evals.datasets import RankedPrompt
from t0train.evals.generation import Generator
from t0train.evals.rank import MAX_INPUTS, MAX_TARGETS, Item, Scores, rank_tokens
from t0train.model import T5

SCORER_VERSION = 2
"""Raise it with every change after which the same weights give other scores or texts: of ranking (what is summed, where
inputs and choices are cut), of the model's arithmetic, of decoding, or of the files. Answers of before are then asked
for again."""

Advance = Callable[[float], object]


class Answerer:
    """A model, and a folder with what it has answered before.

    Attributes:
        model: on the device that it runs on.
        vocabulary: of the model.
        folder: where answers are kept; None keeps nothing.
    """

    def __init__(self, model: T5, vocabulary: Vocabulary, folder: Path | None = None) -> None:
        self.model, self.vocabulary, self.folder = model, vocabulary, folder

    @cached_property
    def generator(self) -> Generator:
        """The model as a generator of text."""
        return Generator.of(self.model, self.vocabulary)

    @cached_property
    def fingerprint(self) -> str:
        """Content hash of architecture and weights."""
        return fingerprint(self.model)

    def scores(self, prompt: RankedPrompt, advance: Advance) -> list[Scores]:
        """The log-probability of every choice, for each item of a prompt."""
        items = [prompt.item(i) for i in range(len(prompt.rows))]
        path = self._path(prompt.task, self._backend, items_content(items)) if self.folder else None
        if path and (kept := _read(path, [partial(_is_score_of_each, len(choices)) for _, choices in items])):
            advance(len(items))
            return [np.array(values, dtype=np.float64) for values in kept]
        scores = rank_tokens(
            self.model, items, name=lambda i: f"task {prompt.task}, row {prompt.rows[i]}", advance=advance
        )
        if path:
            _write(path, prompt.task, [values.tolist() for values in scores])
        return scores

    def texts(self, task: str, inputs: Sequence[str], max_new_tokens: int, advance: Advance) -> list[str]:
        """What the model writes to each input."""
        asked = content_hash([list(inputs), self.vocabulary.fingerprint])
        path = self._path(task, "greedy", MAX_INPUTS, max_new_tokens, asked) if self.folder else None
        if path and (kept := _read(path, [_is_text] * len(inputs))):
            advance(len(inputs))
            return kept
        outputs = self.generator.generate(inputs, max_new_tokens, max_inputs=MAX_INPUTS, advance=advance)
        if path:
            _write(path, task, outputs)
        return outputs

    @property
    def _backend(self) -> str:
        return self.model.backend(next(self.model.parameters()).device, requires_grad=False)

    def _path(self, task: str, *asked: Any) -> Path:
        """The file of the answers to a task; `asked` is how and what the model is asked."""
        assert self.folder is not None
        return self.folder / self.fingerprint / f"{task[:100]}-{content_hash([SCORER_VERSION, *asked])}.json"


def fingerprint(model: T5) -> str:
    """Content hash of a model's architecture and weights."""
    digest = blake2b(json.dumps(model.config.to_json(), sort_keys=True).encode(), digest_size=16)
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def items_content(items: Sequence[Item]) -> str:
    """Identity of what is asked: the token ids of all inputs and choices, and the limits at which they are cut."""
    digest = blake2b(f"{MAX_INPUTS} {MAX_TARGETS}".encode(), digest_size=16)
    for inputs, choices in items:
        for tokens in (inputs, *choices):
            digest.update(len(tokens).to_bytes(4, "little"))
            digest.update(tokens.astype("<u2").tobytes())
        digest.update(b"\xff\xff\xff\xff")  # no length: ends the item
    return digest.hexdigest()


def _read(path: Path, fits: Sequence[Callable[[Any], bool]]) -> list[Any] | None:
    """The answers in a file, one for each of the checks that it must pass; None if they are not all there.

    A file that is there and does not hold them is named on stderr.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        answers, checksum = content["predictions"], content["checksum"]
        is_whole = isinstance(answers, list) and checksum == _checksum(path, answers)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        is_whole = False
    if is_whole and len(answers) == len(fits) and all(fit(answer) for fit, answer in zip(fits, answers, strict=True)):
        return cast(list[Any], answers)
    say(f"{path} is damaged or was edited: its predictions are computed again.")
    return None


def _checksum(path: Path, answers: Sequence[Any]) -> str:
    """Of the answers and of what they answer: the weights and the question, which make the path."""
    return content_hash([path.parent.name, path.name, answers], length=32)


def _is_text(answer: Any) -> bool:
    return isinstance(answer, str)


def _is_score_of_each(choices: int, answer: Any) -> bool:
    is_list = isinstance(answer, list) and len(answer) == choices
    return is_list and all(isinstance(score, float) and math.isfinite(score) for score in answer)


def _write(path: Path, task: str, answers: Sequence[Any]) -> None:
    content = {"task": task, "predictions": answers, "checksum": _checksum(path, answers)}
    write_atomic(path, json.dumps(content, ensure_ascii=False))
