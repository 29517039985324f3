"""promptsource's filters, Jinja's own with their costs counted, and the operations that `rewrite` puts in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jinja2
from jinja2.filters import FILTERS, do_truncate, make_attrgetter
from jinja2.runtime import Context, markup_join
from jinja2.tests import TESTS
from jinja2.utils import _PassArg

from t0train.prompts.methods import check_percent
from t0train.prompts.notes import Note
from t0train.prompts.printing import STATE, NoChoice, check_data, state_of, to_text
from t0train.prompts.rendering import ELEMENT, STEP, CostError, Rendering
from t0train.prompts.rewrite import (
    COUNT,
    COUNT_DEEP,
    JOIN,
    MOST_CHARACTERS,
    PRINT,
    PRINT_TRUNCATED,
    PRINTED,
    SELECT_CHOICE,
    SPEND,
    TEXT_FILTERS,
)

MOST_WIDTH = 1_000_000  # characters, or pieces, that an argument may ask for
# Filters that take constant time, or no longer than what they are given took to make: not worth counting.
_FREE = {"abs", "attr", "count", "d", "default", "first", "float", "int", "last", "length"}
# Filters that go through all that lies in a value, not only through its items.
_DEEP = {"dictsort", "groupby", "max", "min", "pprint", "sort", "sum", "tojson", "unique", "urlencode", "xmlattr"}
_WRITERS = {"pprint", "urlencode", "xmlattr"}  # filters that make a text of all that lies in a value
_WIDTHS = {"batch", "center", "indent", "round", "slice", "tojson", "truncate", "wordwrap"}
_SLOW = {  # times as slow, for a character or an item, as the units assume
    **dict.fromkeys(("groupby", "map", "reject", "rejectattr", "select", "selectattr", "sort"), 5),
    **{"pprint": 30, "striptags": 10, "title": 5, "urlize": 50, "wordcount": 5, "wordwrap": 20},
}
_COMPARISONS = {"in", "==", "eq", "equalto", "!=", "ne", ">", "gt", "greaterthan", "ge", ">=", "<", "lt", "lessthan"}
_COMPARISONS |= {"<=", "le"}


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


def _most_frequent(items: Iterable[Any]) -> list[Any] | None:
    """All items that occur most often, in order of first occurrence; None when there are no items."""
    counts = Counter(items).most_common() if items else []
    return [item for item, count in counts if count == counts[0][1]] if counts else None


def _highlight(text: str) -> str:
    return "<span style='color: #F08080'>" + text + "</span>"


@jinja2.pass_context
def _print(context: Context, value: Any, expression: str = "") -> str:
    state = context.parent[STATE]
    text = value if type(value) is str else to_text(state, value, expression)
    state.spend(len(text))
    return text


@jinja2.pass_context
def _print_truncated(context: Context, value: Any, expression: str = "") -> str:
    text = value if type(value) is str else to_text(context.parent[STATE], value, expression)
    if len(text) > MOST_CHARACTERS:
        text = do_truncate(context.environment, text, MOST_CHARACTERS)
    context.parent[STATE].left -= len(text)  # looked at when the next step is counted: this is what runs most often
    return text


@jinja2.pass_context
def _concatenate(context: Context, values: list[Any], expression: str = "") -> str:
    """The operator `~`."""
    state = state_of(context)
    texts = [to_text(state, value, expression) for value in values]
    state.spend(sum(map(len, texts)))
    return markup_join(texts) if context.eval_ctx.autoescape or context.eval_ctx.volatile else "".join(texts)


@jinja2.pass_context
def _join(context: Context, value: Iterable[Any], d: Any = "", attribute: str | int | None = None) -> str:
    """Jinja's filter, whose items may not be functions and whose result may not be too long."""
    state = state_of(context)
    if attribute is not None:
        value = map(make_attrgetter(context.environment, attribute), value)
    texts = [item if type(item) is str else to_text(state, item) for item in value]
    separator = to_text(state, d)
    state.spend(STEP + sum(map(len, texts)) + (ELEMENT + len(separator)) * len(texts))
    if context.eval_ctx.autoescape:
        joined: str = FILTERS["join"](context.eval_ctx, texts, separator)
        return joined
    return str(separator).join(map(str, texts))


@jinja2.pass_context
def _select_choice(context: Context, choices: Any, index: Any) -> Any:
    """`choices[index]`, with a note where the index counts from the end or selects nothing."""
    if type(index) is int and index < 0:
        state_of(context).note(Note.LAST_CHOICE)
    value = context.environment.getitem(choices, index)
    return NoChoice(obj=choices, name=index) if isinstance(value, jinja2.Undefined) else value


@jinja2.pass_context
def _spend(context: Context, units: int) -> bool:
    state_of(context).spend(units)
    return True


@jinja2.pass_context
def _count(context: Context, value: Any) -> Any:
    """`value`, with the costs of a copy of it, or of going through it, counted."""
    if isinstance(value, str):
        context.parent[STATE].spend(len(value))
    elif isinstance(value, list | tuple | dict):
        context.parent[STATE].spend(ELEMENT * len(value))
    return value


@jinja2.pass_context
def _count_deep(context: Context, value: Any) -> Any:
    context.parent[STATE].spend_on(value)
    return value


def _counted(name: str, function: Callable[..., Any], note: bool = False) -> Callable[..., Any]:
    """A filter of Jinja's with what it costs counted before, or after where it cannot be known before."""
    passed = _PassArg.from_obj(function)
    text, deep, factor = name in TEXT_FILTERS, name in _DEEP, _SLOW.get(name, 1)

    @jinja2.pass_context
    def counted(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        state = context.parent[STATE]
        if text and type(value) is not str:
            value = to_text(state, value, note=note)
        elif name in _WRITERS:
            check_data(state, value)
        if isinstance(value, str):
            state.spend(STEP + len(value) * factor)
        elif deep:
            state.spend(STEP + state.spend_on(value) * (factor - 1))
        else:
            state.spend(STEP + (ELEMENT * len(value) * factor if hasattr(value, "__len__") else 0))
        if args or kwargs:
            _count_arguments(state, name, value, args, kwargs)
        if passed is None:
            result = function(value, *args, **kwargs)
        elif passed is _PassArg.context:
            result = function(context, value, *args, **kwargs)
        elif passed is _PassArg.eval_context:
            result = function(context.eval_ctx, value, *args, **kwargs)
        else:
            result = function(context.environment, value, *args, **kwargs)
        if isinstance(result, str):
            state.spend(len(result))
        elif isinstance(result, list | tuple | dict):
            state.spend(ELEMENT * len(result))
        return result

    return counted


def _count_arguments(state: Rendering, name: str, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """What the arguments of a filter add to its costs."""
    given = (*args, *kwargs.values())
    if name == "replace":
        old, new = kwargs.get("old", args[0] if args else ""), kwargs.get("new", given[-1])
        new = new if type(new) is str else to_text(state, new, note=False)
        if len(new) * len(value) > MOST_WIDTH:
            state.spend((value.count(old) if isinstance(old, str) else len(value)) * len(new))
    elif name == "format":
        check_percent(state, value, kwargs or args)
    elif name in _WIDTHS:
        lines = value.count("\n") + 1 if isinstance(value, str) else 1
        for argument in given:
            if isinstance(argument, int | float):
                most = 300 if name == "round" else MOST_WIDTH
                if abs(argument) > most:
                    raise CostError(f"it calls `| {name}({argument:.6g})`, at most {most:,} is allowed")
                state.spend(int(abs(argument)) * lines if name != "truncate" else 0)
            elif isinstance(argument, str):
                state.spend(len(argument) * lines)
    else:
        for argument in given:
            state.spend_on(argument)
        if name == "sum" and not all(isinstance(argument, int | float | str | None) for argument in given):
            state.spend(state.spend_on(value) * (len(value) if hasattr(value, "__len__") else 1000))


def _counted_test(function: Any) -> Callable[..., Any]:
    """A comparison of Jinja's (`is in`, `select("eq", ...)`) with its costs counted."""

    @jinja2.pass_context
    def counted(context: Context, value: Any, *others: Any) -> Any:
        state = state_of(context)
        state.spend(STEP)
        for other in others:
            state.spend_on(other)
        return function(value, *others)

    return counted


def make_filters() -> dict[str, Any]:
    """All filters by name, Jinja's and promptsource's, and the operations of `rewrite`."""
    counted = {name: _counted(name, function) for name, function in FILTERS.items() if name not in _FREE}
    return {
        **{name: FILTERS[name] for name in _FREE},
        **counted,
        "choice": _choice,
        "random": _random,
        "most_frequent": _counted("most_frequent", _most_frequent),
        "highlight": _counted("highlight", _highlight),
        "join": _join,
        PRINT: _print,
        PRINT_TRUNCATED: _print_truncated,
        JOIN: _concatenate,
        SELECT_CHOICE: _select_choice,
        SPEND: _spend,
        COUNT: _count,
        COUNT_DEEP: _count_deep,
        **{PRINTED + name: _counted(name, FILTERS[name], note=True) for name in TEXT_FILTERS},
    }


def make_tests() -> dict[str, Any]:
    """All tests by name."""
    return {name: _counted_test(test) if name in _COMPARISONS else test for name, test in TESTS.items()}
