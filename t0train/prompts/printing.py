"""How a template's values become text: as in Jinja, but functions and other things that are no data are refused.

`{{ row.values }}` of a row without such a field is a method of the dict; its text is another one in every process.
"""

from __future__ import annotations

import datetime
import re
import types
from decimal import Decimal
from typing import Any

import jinja2
from jinja2.runtime import Context

from t0train.prompts.notes import Note
from t0train.prompts.rendering import ELEMENT, VIEWS, Rendering

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
        expression: where it stands, for the message.
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
