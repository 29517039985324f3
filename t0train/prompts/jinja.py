"""Jinja as promptsource sets it up, compiled once, in jinja2's sandbox, with every random draw keyed by a seed.

Source of the environment: promptsource 0.2.3, `promptsource/templates.py` (global `zip`, filters `choice`,
`most_frequent`, `highlight`, otherwise jinja2's defaults, so an undefined name prints as "").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.filters import do_truncate
from jinja2.runtime import Context, markup_join
from jinja2.sandbox import SandboxedEnvironment

from t0train.prompts.notes import Note
from t0train.prompts.rendering import Rendering
from t0train.prompts.rewrite import (
    JOIN,
    MOST_CHARACTERS,
    PRINT,
    PRINT_TRUNCATED,
    SELECT_CHOICE,
    Rewriter,
)

_MUTATORS = {
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
}
_STATE = "state of the rendering"  # with blanks: no template can name it and no column hides it


@jinja2.pass_context
def _choice(context: Context, options: Sequence[Any]) -> Any:
    return state_of(context).choice(options)


@jinja2.pass_context
def _random(context: Context, options: Sequence[Any]) -> Any:
    """Jinja's built-in filter of that name, drawing from the rendering's own generator."""
    try:
        return state_of(context).choice(options)
    except IndexError:
        return context.environment.undefined("No random item, sequence was empty.")


class _NoChoice(jinja2.Undefined):
    """What an index that selects no answer choice gives; prints as any undefined value, but is noted differently."""


def _text(context: Context, value: Any) -> str:
    """`value` as Jinja prints it, with a note where that is dubious."""
    if isinstance(value, str):
        return value
    if value is None:
        state_of(context).note(Note.NULL)
    elif isinstance(value, jinja2.Undefined):
        state_of(context).note(Note.NO_CHOICE if isinstance(value, _NoChoice) else Note.UNDEFINED)
    elif isinstance(value, list | tuple | dict) and _holds_null(value):
        state_of(context).note(Note.NULL)
    return str(value)


def _holds_null(value: list[Any] | tuple[Any, ...] | dict[Any, Any]) -> bool:
    parts = value.values() if isinstance(value, dict) else value
    return any(part is None or (isinstance(part, list | tuple | dict) and _holds_null(part)) for part in parts)


@jinja2.pass_context
def _print(context: Context, value: Any) -> str:
    return _text(context, value)


@jinja2.pass_context
def _print_truncated(context: Context, value: Any) -> str:
    text = _text(context, value)
    return text if len(text) <= MOST_CHARACTERS else do_truncate(context.environment, text, MOST_CHARACTERS)


@jinja2.pass_context
def _join(context: Context, values: list[Any]) -> str:
    """The operator `~`."""
    texts = [_text(context, value) for value in values]
    return markup_join(texts) if context.eval_ctx.autoescape or context.eval_ctx.volatile else "".join(texts)


@jinja2.pass_context
def _select_choice(context: Context, choices: Any, index: Any) -> Any:
    """`choices[index]`, with a note where the index counts from the end or selects nothing."""
    if type(index) is int and index < 0:
        state_of(context).note(Note.LAST_CHOICE)
    value = context.environment.getitem(choices, index)
    return _NoChoice(obj=choices, name=index) if isinstance(value, jinja2.Undefined) else value


def state_of(context: Context) -> Rendering:
    """The state of the rendering that a filter or function works for."""
    state: Rendering = context.parent[_STATE]
    return state


def _most_frequent(items: Iterable[Any]) -> list[Any] | None:
    """All items that occur most often, in order of first occurrence; None when there are no items."""
    counts = Counter(items).most_common() if items else []
    return [item for item, count in counts if count == counts[0][1]] if counts else None


def _highlight(text: str) -> str:
    return "<span style='color: #F08080'>" + text + "</span>"


def _environment() -> SandboxedEnvironment:
    """Not the immutable sandbox: templates of the collection append to lists of their own."""
    environment = SandboxedEnvironment()
    environment.globals["zip"] = zip
    environment.filters.update(
        {
            "choice": _choice,
            "random": _random,
            "most_frequent": _most_frequent,
            "highlight": _highlight,
            "string": _print,
            PRINT: _print,
            PRINT_TRUNCATED: _print_truncated,
            JOIN: _join,
            SELECT_CHOICE: _select_choice,
        }
    )
    return environment


ENVIRONMENT = _environment()
_GLOBALS = dict(ENVIRONMENT.globals)


@dataclass(frozen=True)
class Program:
    """One compiled Jinja source.

    Attributes:
        reads: every name that it looks up outside itself, Jinja's globals included.
        columns: those of `reads` that can only come from the row (and `answer_choices`).
        required: those of `columns` without a fallback in the source (`is defined`, `default`).
        mutates: it calls list or dict methods that change their object; a row must be copied first.
        draws: it contains a random filter.
    """

    template: jinja2.Template
    reads: frozenset[str]
    columns: frozenset[str]
    required: frozenset[str]
    mutates: bool
    draws: bool

    def run(self, values: dict[str, Any], state: Rendering) -> str:
        """The rendered text. Whatever Jinja or the template's own expressions raise comes through."""
        # As Template.render does, but with the globals merged by us: Jinja's own merge takes half of the time.
        context = self.template.new_context({**_GLOBALS, **values, _STATE: state}, shared=True)
        return "".join(self.template.root_render_func(context))


@lru_cache(maxsize=8192)
def compile_source(source: str) -> Program:
    """Compile and analyse a Jinja source; the result is shared by all templates that have the same text.

    Raises:
        jinja2.TemplateSyntaxError: the source is not valid Jinja.
    """
    tree = ENVIRONMENT.parse(source)
    columns = frozenset(meta.find_undeclared_variables(tree))
    # Jinja reports a namespace that an inner block assigns to as undeclared; only {% set %} can have made it.
    columns -= {node.name for node in tree.find_all(nodes.NSRef)}
    names = {node.name for node in tree.find_all(nodes.Name)}
    filters = {node.name for node in tree.find_all(nodes.Filter)}
    strings = {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}  # map("choice")
    required = columns - _with_fallback(tree)
    mutates = any(node.attr in _MUTATORS for node in tree.find_all(nodes.Getattr))
    Rewriter().visit(tree).set_environment(ENVIRONMENT)
    return Program(
        template=ENVIRONMENT.from_string(tree),
        reads=columns | (names & _GLOBALS.keys()),
        columns=columns,
        required=required,
        mutates=mutates,
        draws=bool({"choice", "random"} & (filters | strings)),
    )


def _with_fallback(tree: nodes.Template) -> set[str]:
    """Names for which the source says what to do when they are undefined."""
    asked = [test.node for test in tree.find_all(nodes.Test) if test.name in ("defined", "undefined")]
    defaulted = [filter_.node for filter_ in tree.find_all(nodes.Filter) if filter_.name in ("default", "d")]
    return {node.name for node in asked + defaulted if isinstance(node, nodes.Name)}
