"""A template and its rendering: promptsource's `Template.apply`, then T0's rules for what becomes an example.

Sources of the rules: promptsource 0.2.3 `promptsource/templates.py`; `apply_template` of T0's `seqio_tasks/utils.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jinja2

from t0train.core.errors import UserError, nearest
from t0train.core.hashing import content_hash
from t0train.prompts.filters import CHOICES
from t0train.prompts.jinja import TRUNCATED_END, Program, compile_source, make_scope
from t0train.prompts.rendering import CostError, Note, Rendering

RENDERER_VERSION = "2"  # part of every store key: raise it when a change alters any rendered text

SEPARATOR = "|||"
PROTECTED_SEPARATOR = "3ed2dface8203c4c9dfb1a5dc58e41e0"  # promptsource's own stand-in for a separator inside the data
NO_LABEL = "<NO LABEL>"
_MOST_NAMES = 10  # that a message lists
_MOST_REASON = 500  # characters of another library's message, which may quote a value of any length
_MOST_READINGS = 256  # records of JSON lines may all have other columns
_NO_NOTES: frozenset[Note] = frozenset()


@dataclass(frozen=True)
class Rendered:
    """One example as text: what the model reads, what it should say, and, for ranked tasks, all it may say.

    Attributes:
        input: the text that the model reads.
        target: the text that it should say; "<NO LABEL>" where the template printed nothing.
        choices: the answer choices; None for an open-ended task.
        notes: what is dubious about the example (see `Note`); no part of what is compared.
    """

    input: str
    target: str
    choices: tuple[str, ...] | None
    notes: frozenset[Note] = field(default=_NO_NOTES, compare=False)


@dataclass(frozen=True)
class Template:
    """One prompt template of a dataset; plain data, so it can be hashed, compared and sent to another process.

    Attributes:
        dataset: e.g. "glue".
        subset: e.g. "mrpc"; "" for a dataset without configurations.
        name: unique within the dataset and subset.
        uid: promptsource's identifier.
        jinja: source of the prompt, `input ||| target`.
        answer_choices: Jinja source of the answer choices, joined by `|||`; None for an open-ended task.
        original_task: whether it asks for the task the dataset was made for.
        choices_in_prompt: whether the input shows the choices; None where nobody said.
        metrics: names as promptsource spells them.
    """

    dataset: str
    subset: str
    name: str
    uid: str
    jinja: str
    answer_choices: str | None = None
    original_task: bool = False
    choices_in_prompt: bool | None = None
    metrics: tuple[str, ...] = ()

    def __str__(self) -> str:
        key = f"{self.dataset}/{self.subset}" if self.subset else self.dataset
        return f"template {self.name!r} of {key}"

    @property
    def columns(self) -> frozenset[str]:
        """Columns of a record that the prompt or the choices may read (a hyphen in a name counts as an underscore)."""
        return self._plan(truncate=True).columns

    @property
    def reads(self) -> frozenset[str]:
        """`columns`, and the names of Jinja's own functions that are looked up: a column of that name hides one."""
        return self._plan(truncate=True).reads

    @property
    def required_columns(self) -> frozenset[str]:
        """Those of `columns` for which the source has no fallback of its own (`is defined`, `default`)."""
        return self._plan(truncate=True).required

    @property
    def fixed_choices(self) -> tuple[str, ...] | None:
        """The answer choices, if they are the same for every record; None if there are none or a record decides."""
        return self._plan(truncate=True).fixed_choices

    @property
    def is_random(self) -> bool:
        """Whether rendering draws at random (`choice`, `random`), so that the seed of `render` matters."""
        plan = self._plan(truncate=True)
        return plan.prompt.draws or (plan.choices is not None and plan.choices.draws)

    @property
    def fingerprint(self) -> str:
        """Content hash of everything that decides the rendered text."""
        return content_hash({"jinja": self.jinja, "answer_choices": self.answer_choices})

    def check_columns(self, available: Iterable[str]) -> None:
        """Refuse data that lack a column: Jinja itself would print "" and make plausible, wrong prompts.

        Raises:
            UserError: names the missing columns and the nearest ones there are; or a column that looks the same as
                another, or that has a name which templates reserve.
        """
        self._plan(truncate=True).reading(tuple(available)).check(self)

    def render(self, record: Mapping[str, Any], seed: int = 0, truncate: bool = True) -> Rendered | None:
        """Make one example of one record, by T0's rules. A pure function of its arguments.

        Args:
            record: column name -> value, as the source has it (hyphens in names are turned into underscores).
            seed: decides the draws of `choice` and `random`; give every (task, record) its own.
            truncate: cut printed expressions to 2048 characters, as T0's training data were.

        Returns:
            The example, or None if T0 dropped such a record: the template printed nothing (a false `{% if %}`), no or
            more than one separator, or an empty input. An empty target becomes "<NO LABEL>". What is dubious about the
            example is in its `notes`, whose count over records `describe_notes` puts into sentences.

        Raises:
            UserError: a missing column, or an expression of the template that fails on this record.
        """
        plan = self._plan(truncate)
        parts, choices, notes = self._apply(plan, record, seed, complete=True)
        if len(parts) != 2 or not parts[0]:
            return None
        target = parts[1] or NO_LABEL
        return Rendered(parts[0], target, choices, _all_notes(parts[1], choices, notes))

    def render_parts(self, record: Mapping[str, Any], seed: int = 0, truncate: bool = True) -> list[str]:
        """What promptsource's `Template.apply` returns: the rendered text split at the separator, each part stripped.

        A missing column prints as "" here.
        """
        return self._apply(self._plan(truncate), record, seed, complete=False)[0]

    def _apply(
        self, plan: _RenderPlan, record: Mapping[str, Any], seed: int, complete: bool
    ) -> tuple[list[str], tuple[str, ...] | None, set[Note] | None]:
        """The parts, the choices as the prompt saw them (they are rendered once, before it), and what was noted."""
        reading = plan.reading(tuple(record))
        if reading.clash or (complete and reading.missing):
            reading.check(self)
        state = Rendering(seed, plan.copies)
        scope = make_scope(reading.values(record, plan.copies), state)
        try:
            choices = plan.answer_choices(scope)
            scope[CHOICES] = None if choices is None else list(choices)
            text = plan.prompt.run(scope)
        except CostError as error:
            raise UserError(f"{self} costs too much on a record: {error}. Record: {_excerpt(record)}") from error
        except Exception as error:  # a template is somebody else's program: it can raise anything
            reason = f"{type(error).__name__}: {_cut(str(error), _MOST_REASON)}"
            raise UserError(f"{self} fails on a record: {reason}. Record: {_excerpt(record)}") from error
        return _split(text), choices, state.notes

    def _plan(self, truncate: bool) -> _RenderPlan:
        try:
            return _make_plan(self.jinja, self.answer_choices, truncate)
        except jinja2.TemplateSyntaxError as error:
            reason = _cut(error.message or "", _MOST_REASON)
            raise UserError(f"{self} is not valid Jinja: line {error.lineno}: {reason}") from error
        except CostError as error:
            raise UserError(f"{self}: its answer choices cost too much: {error}") from error
        except Exception as error:
            reason = _cut(str(error), _MOST_REASON)
            raise UserError(f"{self}: its answer choices cannot be rendered: {reason}") from error


@dataclass(frozen=True)
class _Reading:
    """What a template reads of records that have certain columns.

    Attributes:
        columns: (column, name in templates) of those that are read.
        missing: names that the template needs and no column has.
        names: all there are, for the message.
        clash: why the records cannot be rendered with these columns; "" if they can.
    """

    columns: tuple[tuple[str, str], ...]
    missing: frozenset[str]
    names: tuple[str, ...]
    clash: str

    def check(self, template: Template) -> None:
        if self.clash:
            raise UserError(f"{template}: {self.clash}")
        if self.missing:
            shown = sorted(self.missing)[:_MOST_NAMES]
            hints = "; ".join(f"{_cut(name, 60)!r}: {nearest(name, self.names)}" for name in shown)
            more = len(self.missing) - len(shown)
            raise UserError(
                f"{template} reads columns that the data lack: {hints}" + (f"; and {more:,} more" if more else "")
            )

    def values(self, record: Mapping[str, Any], copies: bool) -> dict[str, Any]:
        """The columns that are read, by the names that templates use, separators in strings protected.

        Only strings of the top level are protected, as in promptsource: a separator inside a list splits the prompt.
        """
        values = {}
        for column, name in self.columns:
            value = record[column]
            if isinstance(value, str):
                value = value.replace(SEPARATOR, PROTECTED_SEPARATOR)
            values[name] = copy.deepcopy(value) if copies else value
        return values


@dataclass(frozen=True)
class _RenderPlan:
    """What is computed once for a template: the compiled sources, and which part of a record they need."""

    prompt: Program
    choices: Program | None
    reads: frozenset[str]
    columns: frozenset[str]
    required: frozenset[str]
    copies: bool
    fixed_choices: tuple[str, ...] | None
    readings: dict[tuple[str, ...], _Reading] = field(default_factory=dict, compare=False)

    def reading(self, available: tuple[str, ...]) -> _Reading:
        """What is read of records with these columns; computed once, as nearly all records have the same."""
        if (known := self.readings.get(available)) is not None:
            return known
        columns = tuple((column, name) for column in available if (name := template_name(column)) in self.reads)
        names = tuple(map(template_name, available))
        clash = ""
        if CHOICES in names:
            clash = f"the data have a column {CHOICES!r}, a name that templates reserve; rename it."
        elif twice := next((name for _, name in columns if names.count(name) > 1), None):
            both = [column for column in available if template_name(column) == twice]
            clash = f"the columns {' and '.join(map(repr, both))} are both {twice!r} in a template; rename one."
        reading = _Reading(columns, self.required - set(names), names, clash)
        if len(self.readings) < _MOST_READINGS:
            self.readings[available] = reading
        return reading

    def answer_choices(self, scope: dict[str, Any]) -> tuple[str, ...] | None:
        """What a prompt sees as the list `answer_choices`: never truncated; None for an open-ended task."""
        if self.fixed_choices is not None:
            return self.fixed_choices
        return None if self.choices is None else tuple(_split(self.choices.run(scope)))


@lru_cache(maxsize=8192)
def _make_plan(jinja: str, answer_choices: str | None, truncate: bool) -> _RenderPlan:
    # promptsource truncates by editing the source: the filter binds to the last operand of an expression only.
    prompt = compile_source(jinja.replace("}}", TRUNCATED_END) if truncate else jinja)
    choices = None if answer_choices is None else compile_source(answer_choices)
    programs = [prompt] if choices is None else [prompt, choices]
    fixed = None
    if choices is not None and not choices.reads and not choices.draws:
        fixed = tuple(_split(choices.run(make_scope({}, Rendering(0)))))
    return _RenderPlan(
        prompt=prompt,
        choices=choices,
        reads=frozenset().union(*(program.reads for program in programs)),
        columns=frozenset().union(*(program.columns for program in programs)) - {CHOICES},
        required=frozenset().union(*(program.required for program in programs)) - {CHOICES},
        copies=any(program.mutates for program in programs),
        fixed_choices=fixed,
    )


def _all_notes(target: str, choices: tuple[str, ...] | None, noted: set[Note] | None) -> frozenset[Note]:
    """What was noted while rendering, and what the target itself shows."""
    if noted is None and target and (choices is None or target in choices) and target[0].isprintable():
        return _NO_NOTES  # nearly always
    notes = set() if noted is None else noted
    if not target:
        notes.add(Note.NO_LABEL)
    elif choices is not None and target not in choices:
        notes.add(Note.NOT_A_CHOICE)
    if target == "None" and Note.NULL in notes:
        notes.add(Note.NULL_TARGET)
    # A stripped text begins with a blank never, but perhaps with a character that has no glyph.
    if target and not target[0].isprintable() and not any(map(_is_visible, target)):
        notes.add(Note.BLANK_TARGET)
    return frozenset(notes)


def _is_visible(character: str) -> bool:
    return character.isprintable() and not character.isspace()


def template_name(column: str) -> str:
    """The name by which templates read a column: promptsource turns hyphens into underscores."""
    return column.replace("-", "_")


def columns_read(templates: Iterable[Template], available: Iterable[str]) -> list[str]:
    """Those of the available columns, as they are spelled, that one of the templates may read.

    A column named like one of Jinja's functions (`range`, `zip`, ...) hides it, so it is among them where it is named.
    """
    read = frozenset[str]().union(*(template.reads for template in templates))
    return [column for column in available if template_name(column) in read]


def _split(text: str) -> list[str]:
    return [part.strip().replace(PROTECTED_SEPARATOR, SEPARATOR) for part in text.split(SEPARATOR)]


def _excerpt(record: Mapping[str, Any], columns: int = 6, width: int = 60) -> str:
    """The record as an error message shows it."""
    shown = [f"{name}={_cut(repr(value), width)}" for name, value in list(record.items())[:columns]]
    return ", ".join(shown) + (", ..." if len(record) > columns else "")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
