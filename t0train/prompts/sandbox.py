"""What a template may call, and what an operator or a method costs. An allow-list: anything else is refused.

Jinja's sandbox hides what leads to the interpreter, but leaves ways to change a record (`x | attr("pop")`,
`dict.update(x, ...)`), to learn today's date (`x.today()`), and to fill the memory (`"a" * 10 ** 9`).
"""

from __future__ import annotations

import datetime
import re
import types
from _string import formatter_field_name_split  # type: ignore[import-not-found]  # as string.Formatter does
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from jinja2 import Undefined
from jinja2.exceptions import SecurityError
from jinja2.runtime import BlockReference, Context, LoopContext, Macro
from jinja2.sandbox import SandboxedEnvironment, SandboxedEscapeFormatter, SandboxedFormatter, safe_range
from jinja2.utils import Cycler, Joiner, Namespace
from markupsafe import Markup

from t0train.prompts.costs import (
    check_bits,
    check_encoding,
    check_key,
    check_number,
    check_width,
    count_call,
    count_items,
)
from t0train.prompts.rendering import ELEMENT, MACRO, STATE, STEP, Rendering, check_data, state_of

MUTATORS = {
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
_DATE = frozenset(["isoformat", "strftime", "weekday", "isoweekday", "isocalendar"])
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(name for name in dir(str) if not name.startswith("_")) - {"maketrans"},
    bytes: frozenset(
        ["count", "decode", "endswith", "find", "hex", "index", "lower", "split", "startswith", "strip", "upper"]
    ),
    list: frozenset(name for name in dir(list) if not name.startswith("_")),
    tuple: frozenset(("count", "index")),
    dict: frozenset(name for name in dir(dict) if not name.startswith("_")) - {"fromkeys"},
    int: frozenset(("bit_length", "is_integer")),
    float: frozenset(("is_integer",)),
    Decimal: frozenset(["is_finite", "is_nan", "is_signed", "normalize"]),
    datetime.date: _DATE,
    datetime.time: _DATE,
    datetime.datetime: _DATE | {"date", "time"},
    datetime.timedelta: frozenset(("total_seconds",)),
}
_CLASSES = (dict, zip, Namespace, Cycler, Joiner)
_OWN = (Macro, Joiner, LoopContext, BlockReference, Undefined)
# As Python reads it: a key, flags, width, precision, a letter without meaning, and what the value is converted to.
_SPECIFICATION = re.compile(r"%(\([^()%]*\)?)?[#0\- +]*(\*|\d+)?(?:\.(\*|\d+)?)?[hlL]?.?", re.DOTALL)


class Environment(SandboxedEnvironment):
    """Jinja's sandbox with our rules for calls and operators."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "**", "%"))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Nothing: `call` takes care of `str.format`."""
        return None

    def getattr(self, obj: Any, attribute: str) -> Any:
        """The method that is called; those of our list need none of the sandbox's further checks."""
        if attribute in _METHODS.get(type(obj), ()):
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """What is looked up, as in the sandbox; a key that takes long to look up is refused."""
        if type(argument) is int:
            try:
                return obj[argument]
            except (TypeError, LookupError):
                return self.undefined(obj=obj, name=argument)  # type: ignore[arg-type]  # as Jinja does
        return super().getitem(obj, check_key(argument))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Classes (`dict`, `zip`) have no attributes for templates: `dict.update` would change a record."""
        return not isinstance(obj, type) and super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:  # noqa: D102 (as in Jinja)
        return check_number(_OPERATORS[operator](state_of(context), left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: D102, N805
        if len(args) + len(kwargs) > 4:  # two of which may be Jinja's own: `f(*long)` copies what it is given
            __context.parent[STATE].spend(ELEMENT * (len(args) + len(kwargs)))
        if isinstance(__obj, types.BuiltinMethodType | types.MethodType):
            owner, name = __obj.__self__, __obj.__name__
            allowed = _METHODS.get(type(owner))
            if allowed is None:
                allowed = next((names for kind, names in _METHODS.items() if isinstance(owner, kind)), frozenset())
            if name in allowed:
                kwargs.pop("_loop_vars", None)
                kwargs.pop("_block_vars", None)
                state = __context.parent[STATE]
                return __self._call_method(state, __obj, owner, name, args, kwargs)
            known = isinstance(owner, Cycler | LoopContext)
        else:
            known = __obj is safe_range or __obj in _CLASSES or isinstance(__obj, _OWN)
        if not known and callable(__obj):
            raise SecurityError(f"a template may not call {getattr(__obj, '__name__', type(__obj).__name__)!r}")
        if __obj in _CLASSES or isinstance(__obj, types.MethodType):  # `loop.changed` compares
            state = state_of(__context)
            state.spend(MACRO)
            # An iterator over an iterator over an iterator takes many steps for each of its elements.
            args = tuple(
                list(count_items(state, "list", arg, ())) if isinstance(arg, Iterator) else arg for arg in args
            )
            for value in (*args, *kwargs.values()):
                state.spend_on(value)
        return __context.call(__obj, *args, **kwargs)

    def _call_method(
        self, state: Rendering, method: Any, owner: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call a method of a text, a list, a dict or another value, its costs counted."""
        if name in MUTATORS and not state.owns_record:
            raise SecurityError(f"a template may not change a value of the record by {name!r} in this spelling")
        if name == "sort" and kwargs.keys() - {"reverse"}:
            raise SecurityError("a template may not sort by a function")
        if name in ("encode", "decode"):
            check_encoding(*args, **kwargs)
        elif name in ("extend", "join", "update"):  # an iterator over the very list that grows would never end
            args = tuple(list(value) if isinstance(value, Iterator) else value for value in args)
        count_call(state, name, owner, args, kwargs)
        if isinstance(owner, str) and name in ("format", "format_map"):
            return self._format(state, owner, name, args, kwargs)
        return method(*args, **kwargs)

    def _format(self, state: Rendering, text: str, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """`str.format`: attributes by the rules for templates, widths and lengths limited."""
        if name == "format_map":
            (kwargs,) = args
            args = ()
        state.spend(2 * STEP * (text.count("{") + text.count("[") + text.count(".")))
        if isinstance(text, Markup):
            return type(text)(_EscapeFormatter(self, state, escape=text.escape).vformat(text, args, kwargs))
        return _Formatter(self, state).vformat(text, args, kwargs)


class _Formatter(SandboxedFormatter):
    def __init__(self, environment: SandboxedEnvironment, state: Rendering, **options: Any) -> None:
        super().__init__(environment, **options)
        self._state = state

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        # As everywhere: data before methods.
        first, rest = formatter_field_name_split(field_name)
        value = self.get_value(first, args, kwargs)
        for _, part in rest:
            value = self._env.getitem(value, part)
        return value, first

    def convert_field(self, value: Any, conversion: Any) -> Any:
        check_data(self._state, value)
        return super().convert_field(value, conversion)

    def format_field(self, value: Any, format_spec: str) -> str:
        self._state.spend(ELEMENT * len(format_spec))
        for number in re.findall(r"\d+", format_spec):
            check_width(int(number[:9]))
        text: str = super().format_field(value, format_spec)
        self._state.spend(len(text))
        return text


class _EscapeFormatter(_Formatter, SandboxedEscapeFormatter):
    pass


def check_percent(state: Rendering, text: str, values: Any) -> None:
    """Refuse `text % values` where it would be too long or print what is no data.

    Raises:
        CostError: a width or the text is too large.
        PrintError: a value is no data.
    """
    parts = list(values.values()) if isinstance(values, Mapping) else values if isinstance(values, tuple) else [values]
    for part in parts:
        check_data(state, part)
    state.spend(STEP * (1 + text.count("%")))
    for match in _SPECIFICATION.finditer(text):
        key, *numbers = match.groups()
        if key and key[-1] != ")":
            raise SecurityError(f"a template may not use {key[:40]!r} as a key of a format")
        for number in numbers:
            if number == "*":
                for part in parts:
                    width = abs(part) if isinstance(part, int) else 0
                    check_width(width)
                    state.spend(width)
            elif number:
                check_width(int(number[:9]))
                state.spend(int(number[:9]))
    # A dict may be printed by each of the places: its costs times their number.
    state.spend(len(text) + (text.count("%") * len(str(values)) if isinstance(values, Mapping) else 0))


def _add(state: Rendering, left: Any, right: Any) -> Any:
    if isinstance(left, str | bytes):
        state.spend(2 * len(left) + (len(right) if isinstance(right, str | bytes) else 0))
    elif isinstance(left, list | tuple):
        state.spend_on(left)
        state.spend_on(right)
    return left + right


def _subtract(state: Rendering, left: Any, right: Any) -> Any:
    result = left - right
    if isinstance(result, set):
        raise SecurityError("`-` of two sets of keys has no order; use a loop, or `| reject('in', ...)`")
    return result


def _multiply(state: Rendering, left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        check_bits(left.bit_length() + right.bit_length() - 1)
    for value, times in ((left, right), (right, left)):
        if isinstance(value, str | bytes | list | tuple) and isinstance(times, int) and times > 0:
            before = state.left
            state.spend_on(value)
            state.spend((before - state.left) * times)
    return left * right


def _power(state: Rendering, left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int) and abs(left) > 1 and right > 0:
        check_bits((left.bit_length() - 1) * right)
    return left**right


def _remainder(state: Rendering, left: Any, right: Any) -> Any:
    if isinstance(left, str | bytes):
        check_percent(state, left if isinstance(left, str) else left.decode("latin-1"), right)
    return left % right


_OPERATORS: dict[str, Callable[[Rendering, Any, Any], Any]] = {
    "+": _add,
    "-": _subtract,
    "*": _multiply,
    "/": lambda state, left, right: left / right,
    "**": _power,
    "%": _remainder,
}
