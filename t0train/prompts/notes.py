"""What is dubious about a rendered example: counted by the commands that render, never changed by the renderer.

Rendering gives what promptsource gives, also where that teaches nothing: a label that indexes no answer choice becomes
the target "<NO LABEL>", a null becomes the word "None", a mistyped field becomes "". Notes make these cases countable:

    counts = Counter(note for rendered in examples for note in rendered.notes)
    for line in describe_notes(counts, len(examples)):
        print(f"{task.name}: {line}")
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Note(StrEnum):
    """One thing that is dubious about one example.

    Attributes:
        NO_LABEL: the template printed nothing as the target, which became "<NO LABEL>".
        NO_CHOICE: `answer_choices` was indexed by something that selects none of them (a text, a float, a null, a
            number too large) and the result, "", was printed.
        LAST_CHOICE: `answer_choices` was indexed by a negative number of the row: -1 selects the last choice.
        NOT_A_CHOICE: there are answer choices, and the target is none of them; never set together with NO_LABEL.
        BLANK_TARGET: the target consists of characters that show nothing (zero-width ones; blanks are stripped).
        NULL_TARGET: the target is the word "None", made of a null.
        NULL: a null was printed, in the input, the target or a choice, as "None".
        UNDEFINED: a name or field that does not exist was printed, as "".
    """

    NO_LABEL = "no_label"
    NO_CHOICE = "no_choice"
    LAST_CHOICE = "last_choice"
    NOT_A_CHOICE = "not_a_choice"
    BLANK_TARGET = "blank_target"
    NULL_TARGET = "null_target"
    NULL = "null"
    UNDEFINED = "undefined"

    @property
    def is_fatal(self) -> bool:
        """Whether a task all of whose examples have this note teaches nothing: data and template do not fit.

        A null may be printed everywhere for a reason, and a target may be none of the choices in every row: in T0's own
        "Negation template for positive and negative" of imdb it is "negative review.", a choice and a word more.
        """
        return self not in (Note.NULL, Note.NOT_A_CHOICE)


_SENTENCES = {
    Note.NO_LABEL: "{count} targets are <NO LABEL>: the template printed nothing as the target",
    Note.NO_CHOICE: "in {count} examples the label indexes no answer choice (expected a whole number, counted from 0)",
    Note.LAST_CHOICE: "in {count} examples the label is negative and selects a choice from the end (-1: the last one)",
    Note.NOT_A_CHOICE: "{count} targets are not among the answer choices",
    Note.BLANK_TARGET: "{count} targets show nothing",
    Note.NULL_TARGET: '{count} targets are "None", made of a null',
    Note.NULL: '{count} examples print a null as "None"',
    Note.UNDEFINED: '{count} examples print a field that does not exist, as ""',
}


def describe_notes(counts: Mapping[Note, int], examples: int) -> list[str]:
    """A sentence for each kind of note that occurs, in the order of `Note`, e.g. "6 of 6 targets are <NO LABEL>: ...".

    Args:
        counts: how many of the examples have the note.
        examples: how many there are.
    """
    return [
        sentence.format(count=f"{counts[note]:,} of {examples:,}")
        for note, sentence in _SENTENCES.items()
        if counts.get(note)
    ]
