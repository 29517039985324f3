"""What is dubious about a task's examples, in numbers: counted when they are prepared, kept in the token store."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa

from t0train.core.errors import UserError
from t0train.data.vocabulary import Vocabulary
from t0train.prompts import Note, Rendered, describe_notes

COUNTS = "counts"  # key of the metadata of a shard's file
_LISTED = 3  # as many tasks with the same remark get a line each; more get one line together
_WORST = 5
_FAULTS = 12
_TEACHES_NOTHING = (
    Note.NO_LABEL,
    Note.NO_CHOICE,
    Note.LAST_CHOICE,
    Note.BLANK_TARGET,
    Note.NULL_TARGET,
    Note.UNDEFINED,
)


@dataclass(frozen=True)
class Counts:
    """Numbers over the examples of a task (or of a shard of it).

    Attributes:
        examples: how many there are; rows that the template dropped are not among them.
        notes: examples with each note of the renderer.
        no_token: examples whose target has no token.
        input_tokens: tokens of the inputs.
        unknown_input_tokens: those of them that stand for characters that the vocabulary does not know.
        target_tokens: tokens of the targets, EOS included.
        unknown_target_tokens: as for the inputs.
    """

    examples: int = 0
    notes: Mapping[Note, int] = field(default_factory=dict)
    no_token: int = 0
    input_tokens: int = 0
    unknown_input_tokens: int = 0
    target_tokens: int = 0
    unknown_target_tokens: int = 0

    @classmethod
    def read(cls, values: Any) -> Counts:
        """From what `to_json` wrote, or the object parsed from it. Raises ValueError, KeyError or TypeError."""
        values = dict(json.loads(values) if isinstance(values, str | bytes) else values)
        notes = {Note(note): int(count) for note, count in values.pop("notes").items()}
        return cls(notes=notes, **{name: int(count) for name, count in values.items()})

    def to_json(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    def __add__(self, other: Counts) -> Counts:
        mine, theirs = asdict(self), asdict(other)
        notes = dict(sorted((Counter(mine.pop("notes")) + Counter(theirs.pop("notes"))).items()))
        return Counts(notes=notes, **{name: value + theirs[name] for name, value in mine.items()})

    def sentences(self) -> dict[str, str]:
        """A sentence for each kind of remark that there is, by the kind's name."""
        kinds = {note: describe_notes({note: count}, self.examples)[0] for note, count in self.notes.items() if count}
        sentences = {str(note): kinds[note] for note in Note if note in kinds}
        if self.no_token > self.notes.get(Note.BLANK_TARGET, 0):
            sentences["no_token"] = f"{self.no_token:,} of {self.examples:,} targets have no token"
        for side in ("target", "input"):
            unknown, tokens = getattr(self, f"unknown_{side}_tokens"), getattr(self, f"{side}_tokens")
            if unknown:
                sentences[f"unknown_{side}_tokens"] = (
                    f"{unknown:,} of {tokens:,} {side} tokens ({unknown / tokens:.2%}) are unknown: characters that "
                    "the vocabulary does not have"
                )
        return sentences

    def share(self, kind: str) -> float:
        """Share of the examples (or tokens) that a kind of `sentences` concerns, 0 to 1."""
        if kind.startswith("unknown_"):
            return _ratio(getattr(self, kind), getattr(self, kind.removeprefix("unknown_")))
        return _ratio(self.no_token if kind == "no_token" else self.notes.get(Note(kind), 0), self.examples)

    def faults(self) -> list[str]:
        """Sentences about what concerns every example, so that nothing can be learned from the task.

        Unknown tokens are not among it: T0 was trained on a template whose targets are stars, all of them unknown.
        """
        kinds = {kind for kind in (*map(str, _TEACHES_NOTHING), "no_token") if self.share(kind) == 1}
        return [sentence for kind, sentence in self.sentences().items() if kind in kinds]


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def count_examples(
    examples: Sequence[Rendered | None], batch: pa.RecordBatch, first_row: int, vocabulary: Vocabulary
) -> Counts:
    """The numbers of one batch of the token store.

    Args:
        examples: one for each source row.
        batch: what `encode_examples` made of them.
        first_row: source row of the first example.
        vocabulary: made the ids.
    """
    kept = [examples[row - first_row] for row in batch.column("source_row").to_pylist()]
    inputs = batch.column("inputs").flatten().to_numpy()
    targets = batch.column("targets").flatten().to_numpy()
    lengths = np.diff(batch.column("targets").offsets.to_numpy())
    return Counts(
        examples=batch.num_rows,
        notes=dict(Counter(note for example in kept if example is not None for note in example.notes)),
        no_token=int(np.sum(lengths == 1)),  # EOS alone
        input_tokens=len(inputs),
        unknown_input_tokens=int(np.sum(inputs == vocabulary.unknown_id)),
        target_tokens=len(targets),
        unknown_target_tokens=int(np.sum(targets == vocabulary.unknown_id)),
    )


def remarks(counts: Mapping[str, Counts]) -> list[str]:
    """What to tell a user about the examples of some tasks: a line per task and kind, or one per kind if they are many.

    Args:
        counts: by task name.
    """
    tasks_of: dict[str, list[str]] = {}
    for task, numbers in counts.items():
        for kind in numbers.sentences():
            tasks_of.setdefault(kind, []).append(task)
    order = [*map(str, Note), "no_token", "unknown_target_tokens", "unknown_input_tokens"]
    return [line for kind in order if kind in tasks_of for line in _lines(kind, tasks_of[kind], counts)]


def _lines(kind: str, tasks: list[str], counts: Mapping[str, Counts]) -> list[str]:
    if len(tasks) <= _LISTED:
        return [f"{task}: {counts[task].sentences()[kind]}" for task in tasks]
    total = reduce(Counts.__add__, (counts[task] for task in tasks))
    worst = sorted(tasks, key=lambda task: (-counts[task].share(kind), task))[:_WORST]
    named = ", ".join(f"{task} ({counts[task].share(kind):.1%})" for task in worst)
    return [f"{len(tasks)} tasks: {total.sentences()[kind]}; most in {named} (`t0train data prepare --json` lists all)"]


def refuse_faults(counts: Mapping[str, Counts]) -> None:
    """Refuse tasks of which nothing can be learned, whatever the example (key `data.allow_empty_targets`).

    Args:
        counts: by task name.

    Raises:
        UserError: names the tasks, what is wrong with them, and how to go on.
    """
    lines = [f"{task}: {sentence}" for task, numbers in counts.items() for sentence in numbers.faults()]
    if lines:
        tasks = sorted(task for task, numbers in counts.items() if numbers.faults())
        more = [f"and {len(lines) - _FAULTS:,} more"] if len(lines) > _FAULTS else []
        listed = "\n  ".join([*lines[:_FAULTS], *more])
        raise UserError(
            f"the targets of {len(tasks)} of {len(counts)} tasks teach nothing, in any example:\n  {listed}\nCorrect "
            f"the rows or the templates, leave the tasks out with mixture.exclude=[{','.join(tasks[:_WORST])}"
            f"{',...' if len(tasks) > _WORST else ''}], or go on all the same with data.allow_empty_targets=true."
        )
