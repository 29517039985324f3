"""promptsource's filters, Jinja's own with their costs counted, and the operations that `rewrite` puts in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jinja2
from jinja2.filters import FILTERS, do_truncate, make_attrgetter
from jinja2.runtime import Context, markup_join
from jinja2.tests import TESTS
from jinja2.utils import _PassArg

from t0train.prompts.costs import check_key, check_number, count_call, count_items, count_result
from t0train.prompts.rendering import (
    ELEMENT,
    STATE,
    STEP,
    CostError,
    NoChoice,
    Note,
    Rendering,
    check_data,
    state_of,
    to_text,
)
from t0train.prompts.sandbox import check_percent

MOST_CHARACTERS = 2048  # of a printed expression, where promptsource truncates
CHOICES = "answer_choices"
PRINT = " print"
PRINT_TRUNCATED = " print truncated"
JOIN = " join"
SELECT_CHOICE = " select choice"
SPEND = " spend"
COUNT = " count"
COUNT_DEEP = " count deep"
KEY = " key"
PRINTED = " printed "  # before the name of a filter whose result is printed
# Filters that begin by turning their value into text.
TEXT_FILTERS = frozenset(
    [
        "capitalize",
        "center",
        "e",
        "escape",
        "forceescape",
        "format",
        "lower",
        "replace",
        "safe",
        "string",
        "striptags",
        "title",
        "trim",
        "upper",
        "wordcount",
    ]
)
# Filters that take constant time, or no longer than what they are given took to make: not worth counting.
_FREE = {"abs", "count", "d", "default", "first", "last", "length"}
_WRITERS = {"pprint", "urlencode", "xmlattr"}  # filters that make a text of all that lies in a value
_SHORT_NUMBER = 100  # characters, of which no base makes a number that is too large
MOST_DECIMALS = 300  # to which a number is rounded
_TESTS = {"in", "==", "eq", "equalto", "!=", "ne", ">", "gt", "greaterthan", "ge", ">=", "<", "lt", "lessthan"}
_TESTS |= {"<=", "le", "lower", "upper"}


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
def _join(context: Context, value: Any, d: Any = "", attribute: str | int | None = None) -> str:
    """Jinja's filter, whose items may not be functions and whose result may not be too long."""
    state = state_of(context)
    if attribute is not None:
        count_call(state, "map", value, (attribute,))
        value = map(make_attrgetter(context.environment, attribute), value)
    elif hasattr(value, "__len__"):
        state.spend(ELEMENT * len(value))
    texts = [item if type(item) is str else to_text(state, item) for item in value]
    separator = to_text(state, d)
    state.spend(STEP + sum(map(len, texts)) + len(separator) * len(texts))
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
    elif hasattr(value, "__len__"):
        context.parent[STATE].spend(ELEMENT * len(value))
    return value


@jinja2.pass_context
def _count_deep(context: Context, value: Any) -> Any:
    if type(value) is not int:
        context.parent[STATE].spend_on(value)
    return value


def _counted(name: str, function: Callable[..., Any], note: bool = False) -> Callable[..., Any]:
    """A filter of Jinja's with what it costs counted before, or after where it cannot be known before."""
    passed = _PassArg.from_obj(function)
    text = name in TEXT_FILTERS

    @jinja2.pass_context
    def counted(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        state = context.parent[STATE]
        if text and type(value) is not str:
            value = to_text(state, value, note=note)
        elif name in _WRITERS:
            check_data(state, value)
        elif isinstance(value, Iterator):
            value = count_items(state, name, value, (*args, *kwargs.values()))
        if special := _SPECIAL.get(name):
            value, args, kwargs = special(state, value, args, kwargs)
        count_call(state, name, value, args, kwargs)
        if passed is None:
            result = function(value, *args, **kwargs)
        elif passed is _PassArg.context:
            result = function(context, value, *args, **kwargs)
        elif passed is _PassArg.eval_context:
            result = function(context.eval_ctx, value, *args, **kwargs)
        else:
            result = function(context.environment, value, *args, **kwargs)
        count_result(state, result)
        return result

    return counted


_Call = tuple[Any, tuple[Any, ...], dict[str, Any]]  # the value, and the other arguments of a filter


def _before_replace(state: Rendering, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call:
    """What is looked for and what takes its place become text as when they are printed."""
    texts = tuple(text if type(text) is str else to_text(state, text, note=False) for text in args[:2])
    for name in kwargs.keys() & {"old", "new"}:
        kwargs[name] = to_text(state, kwargs[name], note=False)
    return value, texts + args[2:], kwargs


def _before_format(state: Rendering, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call:
    check_percent(state, value, kwargs or args)
    return value, args, kwargs


def _before_round(state: Rendering, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call:
    for argument in (*args, *kwargs.values()):
        if isinstance(argument, int | float) and abs(argument) > MOST_DECIMALS:
            raise CostError(f"it rounds to {argument:,.6g} decimals, at most {MOST_DECIMALS} are computed")
    return value, args, kwargs


def _before_sum(state: Rendering, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call:
    """Lists that are added are copied at every step."""
    start = kwargs.get("start", args[1] if len(args) > 1 else 0)
    if isinstance(start, list | tuple):
        value = list(value)
        state.spend((state.spend_on(start) + state.spend_on(value)) * len(value))
    return value, args, kwargs


_SPECIAL: dict[str, Callable[[Rendering, Any, tuple[Any, ...], dict[str, Any]], _Call]] = {
    "format": _before_format,
    "replace": _before_replace,
    "round": _before_round,
    "sum": _before_sum,
}


@jinja2.pass_context
def _int(context: Context, value: Any, default: Any = 0, base: int = 10) -> Any:
    """Jinja's filter: Python itself limits the digits of a decimal number alone."""
    if type(value) is str and len(value) <= _SHORT_NUMBER:
        return FILTERS["int"](value, default, base)
    count_call(state_of(context), "int", value)
    return check_number(FILTERS["int"](check_number(value), default, base))


def _counted_test(function: Any) -> Callable[..., Any]:
    """A test of Jinja's that goes through what it is given (`is in`, `is lower`) with its costs counted."""

    @jinja2.pass_context
    def counted(context: Context, value: Any, *others: Any) -> Any:
        state = state_of(context)
        state.spend(STEP)
        for other in (value, *others):
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
        "int": _int,
        "join": _join,
        PRINT: _print,
        PRINT_TRUNCATED: _print_truncated,
        JOIN: _concatenate,
        SELECT_CHOICE: _select_choice,
        SPEND: _spend,
        COUNT: _count,
        COUNT_DEEP: _count_deep,
        KEY: check_key,
        **{PRINTED + name: _counted(name, FILTERS[name], note=True) for name in TEXT_FILTERS},
    }


def make_tests() -> dict[str, Any]:
    """All tests by name."""
    return {name: _counted_test(test) if name in _TESTS else test for name, test in TESTS.items()}
