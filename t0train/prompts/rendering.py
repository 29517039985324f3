"""One rendering: its random draws, what it may still cost, how its values become text, and what is dubious about it.

A template is somebody else's program. Its costs are counted in units of about a character copied or some nanoseconds:
the same record gives the same count on any machine, as a limit of seconds would not.

Values become text as in Jinja, but functions and other things that are no data are refused: `{{ table.values }}`
without such a field is a method of the dict, whose text is another one in every process.

Rendering gives what promptsource gives, also where that teaches nothing: a label that indexes no answer choice becomes
the target "<NO LABEL>", a null becomes the word "None", a mistyped field becomes "". Notes make these cases countable:

    counts = Counter(note for rendered in examples for note in rendered.notes)
    for line in describe_notes(counts, len(examples)):
        print(f"{task.name}: {line}")
"""

from __future__ import annotations

import datetime
import random
import re
import types
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Any

import jinja2
from jinja2.runtime import Context


class Note(StrEnum):
    """One thing that is dubious about one example.

    Attributes:
        NO_LABEL: the template printed nothing as the target, which became "<NO LABEL>".
        NO_CHOICE: `answer_choices` was indexed by something that selects none of them (a text, a float, a null, a
            number too large) and the result, "", was printed.
        LAST_CHOICE: `answer_choices` was indexed by a negative number of the record: -1 selects the last choice.
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

        A null may be printed everywhere for a reason, and a target may be none of the choices in every record: in T0's
        own "Negation template for positive and negative" of imdb it is "negative review.", a choice and a word more.
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


BUDGET = 40_000_000  # units; at worst one or two seconds. Templates of the collection spend some thousands a record
ELEMENT = 20  # units for an element of a list or a dict that is looked at
STEP = 50  # units for a step of a loop or a filter, besides the characters
MACRO = 250  # units for the call of a macro
NODE = 10  # units for a name, a constant or an operation in what is repeated

VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_CONTAINERS = (list, tuple, dict, range, *VIEWS)


class CostError(Exception):
    """A template would cost more time or memory than a template may."""


class Rendering:
    """Handed to the filters and functions of a template through Jinja's context.

    The generator of the draws is Python's own, so that a rendering with seed `s` equals promptsource's after
    `random.seed(s)`; it is made on the first draw, as most templates draw nothing. `notes` stays None likewise.

    Attributes:
        seed: decides the draws.
        owns_record: the values of the record are copies, which the template may change.
        notes: what is dubious so far; None for nothing.
        left: units that may still be spent.
    """

    __slots__ = ("_generator", "left", "notes", "owns_record", "seed")

    def __init__(self, seed: int, owns_record: bool = True):
        self.seed = seed
        self.owns_record = owns_record
        self.notes: set[Note] | None = None
        self.left = BUDGET
        self._generator: random.Random | None = None

    def choice(self, options: Sequence[Any]) -> Any:
        """One element of `options`; IndexError when there is none."""
        if self._generator is None:
            self._generator = random.Random(self.seed)
        return self._generator.choice(options)

    def note(self, note: Note) -> None:
        """Remember that the example has this note."""
        if self.notes is None:
            self.notes = set()
        self.notes.add(note)

    def spend(self, units: int) -> None:
        """Count costs before they arise.

        Raises:
            CostError: that is more than may be spent.
        """
        self.left -= units
        if self.left < 0:
            raise CostError(
                "it makes texts or lists too large, or loops too often; one record may cost about"
                f" {BUDGET // 1_000_000} million characters, or {BUDGET // STEP:,} steps of loops"
            )

    def spend_on(self, value: Any) -> int:
        """Count the costs of going through a value, however deep: a list may hold one other list many times.

        Returns:
            The costs.

        Raises:
            CostError: the value is larger than what may be spent.
        """
        if isinstance(value, str | bytes):
            units = len(value)
            self.left -= units
            if self.left < 0:
                self.spend(0)
            return units
        if not isinstance(value, _CONTAINERS):
            return 0
        total = 0
        pending: list[Any] = [value]
        while pending:
            part = pending.pop()
            units = ELEMENT * (1 + len(part))
            if not isinstance(part, range):
                for element in (*part, *part.values()) if isinstance(part, dict) else part:
                    if isinstance(element, str | bytes):
                        units += len(element)
                    elif isinstance(element, _CONTAINERS):
                        pending.append(element)
            self.spend(units)
            total += units
        return total


STATE = "state of the rendering"  # in the context; with blanks: no template can name it and no column hides it
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_SCALARS = (
    str,
    int,
    float,
    bool,
    bytes,
    complex,
    type(None),
    Decimal,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    range,
)


class PrintError(Exception):
    """A template prints something that is no data."""


class NoChoice(jinja2.Undefined):
    """What an index that selects no answer choice gives; prints as any undefined value, but is noted differently."""


def state_of(context: Context) -> Rendering:
    """The state of the rendering that a filter or function works for."""
    state: Rendering = context.parent[STATE]
    return state


def to_text(state: Rendering, value: Any, expression: str = "", note: bool = True) -> str:
    """`value` as Jinja prints it, a text that is marked as safe left marked.

    Args:
        state: of the rendering.
        value: anything that a template can compute.
        expression: where it occurs, for the message.
        note: whether nulls and undefined values are noted: not in conditions.

    Raises:
        PrintError: it is, or holds, a function or another object that is no data.
        CostError: the text is too long.
    """
    if isinstance(value, str):
        return value
    kind = type(value)
    if kind is not int and kind is not float and kind is not bool:
        check_data(state, value, expression, note)
    return str(value)


def check_data(state: Rendering, value: Any, expression: str = "", note: bool = True) -> None:
    """Refuse what is no data, count what its text costs, note nulls and undefined values.

    Raises:
        PrintError: it is, or holds, a function or another object that is no data.
        CostError: the text is too long.
    """
    pending = [value]
    while pending:
        part: Any = pending.pop()
        if isinstance(part, _SCALARS):
            if part is None and note:
                state.note(Note.NULL)
            state.spend(ELEMENT + (len(part) if isinstance(part, str | bytes) else 0))
        elif type(part) in VIEWS or isinstance(part, list | tuple | dict):
            state.spend(ELEMENT * (1 + len(part)))
            pending.extend(part)
            if isinstance(part, dict):
                pending.extend(part.values())
        elif isinstance(part, jinja2.Undefined):
            if note:
                state.note(Note.NO_CHOICE if isinstance(part, NoChoice) else Note.UNDEFINED)
        elif not _is_plain(part):
            place = f"`{expression.strip()}` prints" if expression else "it makes a text of"
            raise PrintError(f"{place} {_name(part)}, not data{_advice(part)}")


def _is_plain(value: Any) -> bool:
    """Whether an object of a type unknown to us has a text of its own."""
    if callable(value) or isinstance(value, types.MappingProxyType | set | frozenset):
        return False
    return not type(value).__module__.startswith("jinja2") and not _ADDRESS.search(repr(value))


def _name(value: Any) -> str:
    owner = getattr(value, "__self__", None)
    if isinstance(value, types.BuiltinMethodType | types.MethodType) and not isinstance(owner, types.ModuleType):
        return f"the method {value.__name__!r} of a {type(owner).__name__}"
    if isinstance(value, type | types.FunctionType):
        return f"the function {value.__name__!r}"
    if isinstance(value, types.GeneratorType):
        return "a generator"
    return f"an object of type {type(value).__name__!r}"


def _advice(value: Any) -> str:
    if isinstance(value, types.BuiltinMethodType | types.MethodType):
        return ": the value has no field of that name; call the method, or name a field that exists"
    if isinstance(value, types.GeneratorType | zip) or hasattr(value, "__next__"):
        return ": turn it into one by `| list` or `| join`"
    return ""
