"""Metrics of written answers, computed by the libraries that define them: sacrebleu, rouge-score. All 0 to 1."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray

Texts = Sequence[str]
References = Sequence[Sequence[str]]  # one or more right answers to each prompt

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def item_scores(metric: str, outputs: Texts, references: References) -> NDArray[np.float64]:
    """The score of each output against the best of its references, [outputs].

    Args:
        metric: a key of `ITEM_METRICS`.
        outputs: what the model wrote.
        references: the right answers to each.
    """
    score = ITEM_METRICS[metric]()
    pairs = zip(outputs, references, strict=True)
    return np.array([max(score(output, right) for right in rights) for output, rights in pairs], dtype=np.float64)


def constant_answer(references: References) -> str:
    """The right answer of the most records, the first of equally frequent ones: it takes no reading to give it."""
    return Counter(text for rights in references for text in dict.fromkeys(rights)).most_common(1)[0][0]


def corpus_bleu(outputs: Texts, references: References) -> float:
    """BLEU of sacrebleu over all outputs, with its defaults (tokenizer 13a), divided by 100."""
    import sacrebleu

    most = max(map(len, references))
    padded = [[*rights, *[None] * (most - len(rights))] for rights in references]  # None: no further reference
    streams = cast("Sequence[Sequence[str]]", list(zip(*padded, strict=True)))
    return float(sacrebleu.corpus_bleu(outputs, streams).score) / 100


def normalise(text: str) -> str:
    """SQuAD's normalisation: lower case, no punctuation, no articles, single blanks (Rajpurkar et al. 2016)."""
    text = text.lower().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(output: str, right: str) -> float:
    """1 if both are the same after SQuAD's normalisation."""
    return float(normalise(output) == normalise(right))


def contains(output: str, right: str) -> float:
    """1 if the right answer occurs in the output as whole words, both after SQuAD's normalisation.

    The model card's measure for WinoBias: the article before the noun, its capital and punctuation do not matter; `the
    developer` is not found in `developers`.
    """
    return float(f" {normalise(right)} " in f" {normalise(output)} ")


class _SquadTokens:
    """Words as SQuAD counts them."""

    @staticmethod
    def tokenize(text: str) -> list[str]:
        return normalise(text).split()


def _rouge(name: str, tokenizer: object = None) -> Callable[[str, str], float]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([name], tokenizer=tokenizer)
    return lambda output, right: float(scorer.score(right, output)[name].fmeasure)


def _token_f1() -> Callable[[str, str], float]:
    """SQuAD's F1 is that of unigrams, hence ROUGE-1 on SQuAD's words; two empty answers are equal."""
    overlap = _rouge("rouge1", _SquadTokens())
    return lambda output, right: max(exact_match(output, right), overlap(output, right))


ITEM_METRICS: dict[str, Callable[[], Callable[[str, str], float]]] = {
    "exact_match": lambda: exact_match,
    "token_f1": _token_f1,
    "contains": lambda: contains,
    **{name: partial(_rouge, name) for name in ("rouge1", "rouge2", "rougeL")},
}
"""Makers of the functions that score one output against one right answer."""
