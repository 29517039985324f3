"""Rank classification: the score of a choice is the summed log-probability of its tokens, EOS included.

As the original (t5/evaluation and mesh_tensorflow/transformer/utils.py, "score"): float32, no length normalisation, the
first choice wins a tie, inputs without EOS. Unlike it, examples are packed like training rows: every input is encoded
once, and all its choices are target segments of one decoder row that read that input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any, NoReturn, TypeAlias

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from t0train.config.suite import Normalise
from t0train.core.errors import UserError
from t0train.core.hashing import content_hash
from t0train.data import Vocabulary, build_rows, pack
from t0train.evals.datasets import Item, RankDataset, RankPrompt, Tokens
from t0train.evals.eval_config import SINGLE_CHOICE
from t0train.evals.models import EvalModel
from t0train.evals.prediction_cache import PredictionCache
from t0train.model import T5, Batch, token_scores
from t0train.results.results_folder import SCORES
from t0train.results.results_json import Mistake, RankedPromptScore, RankedScore
from t0train.results.statistics import RankPredictions, f1_of_prompts, summarise

Scores: TypeAlias = NDArray[np.float64]

MAX_INPUTS, MAX_TARGETS = 1024, 256  # tokens of an input and of a choice, as in T0's evaluation; cut at the end

_BATCH_TOKENS = 8192  # input slots that go through the model at once
_WINDOW = 1024  # pieces that are packed together, as in training
_SHORT_ROW = 256  # inputs shorter than this share a row of about this width
_WIDTH_STEP = 64
_MISTAKES = 3  # shown of each dataset's worst prompt


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


def rank_choices(model: T5, vocabulary: Vocabulary, examples: Sequence[tuple[str, Sequence[str]]]) -> list[Scores]:
    """Score every choice of every example; `scores.argmax()` is the prediction.

    Args:
        model: left in the mode (train or eval) that it was in.
        vocabulary: of the model.
        examples: (input text, choices) pairs; the number of choices may differ.

    Returns:
        One array [choices] of log-probabilities per example, in the order given.

    Raises:
        UserError: an example without choices or with an empty input, NaN scores.
    """
    inputs = vocabulary.encode_many([text for text, _ in examples])
    flat = vocabulary.encode_many([choice for _, choices in examples for choice in choices])
    targets = iter([np.append(tokens, np.uint16(vocabulary.eos_id)) for tokens in flat])
    items = [(tokens, [next(targets) for _ in choices]) for tokens, (_, choices) in zip(inputs, examples, strict=True)]
    return rank_tokens(model, items)


def rank_tokens(
    model: T5,
    items: Sequence[Item],
    name: Callable[[int], str] = "example {}".format,
    advance: Callable[[float], object] = lambda amount: None,
) -> list[Scores]:
    """`rank_choices` on token ids.

    Args:
        model: as in `rank_choices`.
        items: (input ids without EOS, choices' ids with EOS) pairs.
        name: what to call an item in an error message.
        advance: called after every batch with the number of items that were begun in it.
    """
    pieces = [piece for i, item in enumerate(items) for piece in _pieces(i, item, name)]
    rows = _pack(pieces)
    scores = [np.full(len(choices), np.nan) for _, choices in items]
    training = model.training
    model.eval()
    try:
        for some in _batches(rows):
            for piece, values in zip(_flatten(some), _score(model, some), strict=True):
                if np.isnan(values).any():
                    _report_nan(model, _flatten(some), name)
                scores[piece.item][piece.choices] = values
            advance(sum(piece.choices[0] == 0 for piece in _flatten(some)))
    finally:
        model.train(training)
    return [values[_first_equal(choices)] for values, (_, choices) in zip(scores, items, strict=True)]


def _pieces(index: int, item: Item, name: Callable[[int], str]) -> list[_Piece]:
    """Trim an item and spread its distinct choices over as few decoder rows as hold them in order."""
    inputs, choices = item
    if not len(choices):
        raise UserError(f"{name(index)} has no choices; rank classification needs at least one.")
    if not len(inputs):
        raise UserError(f"{name(index)} has an empty input; give the model at least one token to read.")
    pieces: list[_Piece] = []
    for k in np.unique(_first_equal(choices)).tolist():
        target = choices[k][:MAX_TARGETS]
        if not pieces or pieces[-1].target_length + len(target) > MAX_TARGETS:
            pieces.append(_Piece(index, inputs[:MAX_INPUTS], [], []))
        pieces[-1].choices.append(k)
        pieces[-1].targets.append(target)
    return pieces


def _first_equal(choices: Sequence[Tokens]) -> NDArray[np.int64]:
    """For each choice the first one with the same (trimmed) tokens: scored once, so that equal choices tie exactly."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(tokens[:MAX_TARGETS].tobytes(), k) for k, tokens in enumerate(choices)])


def _pack(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
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
        width = _width(longest * -(-_SHORT_ROW // longest), MAX_INPUTS)
        packed = pack(input_lengths, target_lengths, width, MAX_TARGETS, method="best_fit")
        rows += [[window[i] for i in row] for row in packed]
    return sorted(rows, key=lambda row: -_input_length(row))


def _batches(rows: Sequence[list[_Piece]]) -> Iterator[Sequence[list[_Piece]]]:
    start = 0
    while start < len(rows):
        stop = start + max(1, _BATCH_TOKENS // _input_length(rows[start]))
        yield rows[start:stop]
        start = stop


def _input_length(row: Sequence[_Piece]) -> int:
    return sum(len(piece.inputs) for piece in row)


def _flatten(rows: Sequence[Sequence[_Piece]]) -> list[_Piece]:
    return [piece for row in rows for piece in row]


def _report_nan(model: T5, pieces: Sequence[_Piece], name: Callable[[int], str]) -> NoReturn:
    """NaN spreads along a row (0 x NaN), so score the pieces alone to find the one that gives it."""
    alone = (np.isnan(_score(model, [[piece]])).any() for piece in pieces)
    culprit = next((piece for piece, bad in zip(pieces, alone, strict=True) if bad), pieces[0])
    raise UserError(
        f"{name(culprit.item)}: the model gives NaN as log-probability, so its weights or its arithmetic are damaged; "
        "check the checkpoint, and use bf16 or fp32 (T5 overflows in fp16)."
    )


def _width(used: int, most: int) -> int:
    """Columns for `used` tokens: in steps, so that few shapes occur."""
    return min(-(-used // _WIDTH_STEP) * _WIDTH_STEP, most)


def _score(model: T5, rows: Sequence[Sequence[_Piece]]) -> list[Scores]:
    """Scores of the choices of each piece, in the order of `_flatten(rows)`."""
    packed = build_rows(
        [[(piece.inputs, piece.targets) for piece in row] for row in rows],
        _width(max(map(_input_length, rows)), MAX_INPUTS),
        _width(max(sum(piece.target_length for piece in row) for row in rows), MAX_TARGETS),
    )
    device = next(model.parameters()).device
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


@dataclass(frozen=True)
class RankScorer:
    """Scores datasets by the choices that a model prefers.

    Attributes:
        model: with its vocabulary.
        cache: of the scores of choices.
        seed: of the bootstrap.
        advance: called with the number of items that were begun.
    """

    model: EvalModel
    cache: PredictionCache
    seed: int = 0
    advance: Callable[[float], object] = lambda amount: None

    def predict(self, prompt: RankPrompt) -> list[Scores]:
        """The log-probability of every choice, for each item of a prompt."""
        model, items = self.model.model, [prompt.item(i) for i in range(len(prompt.records))]

        def compute() -> list[list[float]]:
            scores = rank_tokens(
                model, items, name=lambda i: f"task {prompt.task}, record {prompt.records[i]}", advance=self.advance
            )
            return [values.tolist() for values in scores]

        backend = model.backend(next(model.parameters()).device, requires_grad=False)  # decides how sums are rounded
        fits = [partial(_is_score_of_each, len(choices)) for _, choices in items]
        kept = self.cache.get(prompt.task, [backend, _content(items)], fits, compute, self.advance)
        return [np.array(values, dtype=np.float64) for values in kept]

    def score(self, dataset: RankDataset) -> tuple[RankedScore, pa.Table]:
        """Score and summarise all prompts of a dataset that apply to at least one of its records."""
        spec, prompts = dataset.entry.spec, dataset.applicable
        scores = [self.predict(prompt) for prompt in prompts]
        lengths = partial(_lengths, spec.normalise, self.model.vocabulary)
        predictions = [_choose(prompt, values, lengths) for prompt, values in zip(prompts, scores, strict=True)]
        statistics, spread = summarise(predictions, self.seed)
        f1s, f1_interval = (
            f1_of_prompts(predictions, self.seed) if "f1" in spec.metrics else ([None] * len(prompts), None)
        )
        results = tuple(
            RankedPromptScore(
                **dict(one),
                name=prompt.name,
                task=prompt.task,
                identity=_identity(prompt, spec.normalise),
                metrics={"f1": f1.value} if f1 else {},
                metric_intervals={"f1": f1.interval} if f1 else {},
                metric_baselines={"f1": {"chance": f1.chance, "majority": f1.majority}} if f1 else {},
                remarks=_remarks(prompt),
            )
            for prompt, one, f1 in zip(prompts, statistics, f1s, strict=True)
        )
        result = RankedScore(
            **dict(dataset.facts(results)),
            **dict(spread),
            prompts=results,
            metric_intervals={"f1": f1_interval} if f1_interval else {},
            normalise=spec.normalise,
            mistakes=_mistakes(self.model.vocabulary, prompts, predictions),
        )
        tables = [
            pa.table(
                {
                    **dataset.item_columns(prompt),
                    "scores": values,
                    "prediction": chosen.predictions,
                    "gold": chosen.gold,
                    "right": chosen.scores,
                },
                schema=SCORES,
            )
            for prompt, values, chosen in zip(prompts, scores, predictions, strict=True)
        ]
        return result, pa.concat_tables(tables)


def _is_score_of_each(choices: int, prediction: Any) -> bool:
    is_list = isinstance(prediction, list) and len(prediction) == choices
    return is_list and all(isinstance(score, float) and math.isfinite(score) for score in prediction)


def _content(items: Sequence[Item]) -> str:
    """Hash of the token ids of all inputs and choices, and of the limits at which they are cut."""
    digest = blake2b(f"{MAX_INPUTS} {MAX_TARGETS}".encode(), digest_size=16)
    for inputs, choices in items:
        for tokens in (inputs, *choices):
            digest.update(len(tokens).to_bytes(4, "little"))
            digest.update(tokens.astype("<u2").tobytes())
        digest.update(b"\xff\xff\xff\xff")  # no length: ends the item
    return digest.hexdigest()


def _mistakes(
    vocabulary: Vocabulary, prompts: Sequence[RankPrompt], predictions: Sequence[RankPredictions]
) -> tuple[Mistake, ...]:
    """The first wrong answers under the prompt with the lowest accuracy."""
    worst = min(range(len(prompts)), key=lambda k: predictions[k].scores.mean())
    prompt, given = prompts[worst], predictions[worst]
    mistakes = []
    for i in np.flatnonzero(given.scores == 0)[:_MISTAKES].tolist():
        inputs, choices = prompt.item(i)
        texts = [vocabulary.decode(choice) for choice in choices]
        gold = given.gold[i]
        mistakes.append(
            Mistake(
                prompt=prompt.name,
                record=int(prompt.records[i]),
                input=vocabulary.decode(inputs),
                answer=texts[given.predictions[i]],
                gold=texts[gold] if gold >= 0 else None,
            )
        )
    return tuple(mistakes)


def _identity(prompt: RankPrompt, normalise: Normalise) -> str:
    return prompt.identity if normalise == "sum" else content_hash([prompt.identity, normalise])


def _lengths(normalise: Normalise, vocabulary: Vocabulary, choices: Sequence[Tokens]) -> NDArray[np.float64]:
    """What the score of each choice is divided by, [choices]."""
    cut = [choice[:MAX_TARGETS] for choice in choices]
    match normalise:
        case "sum":
            return np.ones(len(cut))
        case "mean_tokens":
            return np.array([len(choice) for choice in cut], dtype=np.float64)
        case "mean_chars":  # an empty choice is EOS alone
            return np.array([max(1, len(vocabulary.decode(choice))) for choice in cut], dtype=np.float64)


def _choose(
    prompt: RankPrompt, scores: Sequence[Scores], lengths: Callable[[Sequence[Tokens]], NDArray[np.float64]]
) -> RankPredictions:
    """The choice with the highest score of each item, the first of equal ones."""
    places = range(len(prompt.records))
    return RankPredictions(
        items=prompt.records,
        predictions=np.array(
            [(values / lengths(prompt.item(i)[1])).argmax() for i, values in enumerate(scores)], dtype=np.int64
        ),
        grades=[prompt.grades(i) for i in places],
        gold=np.array([prompt.gold(i) for i in places], dtype=np.int64),
        classes=prompt.classes,
    )


def _remarks(prompt: RankPrompt) -> dict[str, int]:
    """What is odd about a prompt's items: no error, but a reader of the figures should know."""
    found = {
        "empty choice": 0,
        SINGLE_CHOICE: 0,
        "choices with the same tokens": 0,
        f"choice cut to {MAX_TARGETS} tokens": 0,
        f"input cut to {MAX_INPUTS} tokens": 0,
    }
    empty, single, alike, cut, long = found
    for i in range(len(prompt.records)):
        inputs, choices = prompt.item(i)
        lengths = [len(choice) for choice in choices]
        found[empty] += min(lengths) == 1  # EOS alone
        found[single] += len(choices) == 1
        found[alike] += len({choice[:MAX_TARGETS].tobytes() for choice in choices}) < len(choices)
        found[cut] += max(lengths) > MAX_TARGETS
        found[long] += len(inputs) > MAX_INPUTS
    return {**prompt.remarks, **{remark: number for remark, number in found.items() if number}}
