"""What filters, methods and operators cost: one rule, a table of what does not follow it, and what may not be made.

The rule: whatever goes through a value first counts its size, however deep it is, and the sizes of its arguments; what
comes out is counted too. A filter and the method of the same name cost the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from jinja2.exceptions import SecurityError

from t0train.prompts.rendering import ELEMENT, STEP, CostError, Rendering

MOST_BITS = 1024  # of a whole number that a template computes: as large as a float can be
MOST_DIGITS = MOST_BITS * 3 // 10
MOST_WIDTH = 1_000_000  # characters to which a text is padded, or pieces that a list is cut into
MOST_KEY = 100_000  # characters of a text that is looked up
MOST_KEY_PARTS = 100  # of a tuple that is looked up
# Other encodings take long for long texts (punycode), or are none of text.
_ENCODINGS = {"ascii", "cp1252", "latin-1", "latin1", "utf-8", "utf8", "utf-16", "utf-32"}

_Count = Callable[..., int]


@dataclass(frozen=True, slots=True)
class Cost:
    """How the costs of a filter or method differ from those of one that goes through what it is given once.

    Attributes:
        factor: times as much time or memory, for a character or an element, as the units assume.
        constant: it does not go through its value.
        by_element: it makes elements of the characters of a text.
        searches: it may look for each character of an argument at each character of the text.
        reads: it reads an attribute of each element, which may be long: `map(attribute="a.b.c")`.
        most: units that it may be given, where the time grows with their square or with their depth; 0 for any number.
        width: how many times it writes as many blanks, or makes as many pieces, as an argument says.
        growth: how long the result becomes, where that depends on the arguments.
    """

    factor: int = 1
    constant: bool = False
    by_element: bool = False
    searches: bool = False
    reads: bool = False
    most: int = 0
    width: _Count | None = None
    growth: _Count | None = None


def _once(state: Rendering, value: Any) -> int:
    return 1


def _lines(state: Rendering, value: Any) -> int:
    return value.count("\n") + 1 if isinstance(value, str) else 1


def _tabs(state: Rendering, value: Any) -> int:
    return int(value.count("\t"))


def _parts(state: Rendering, value: Any) -> int:
    return 1 + state.spend_on(value)


def _joined(text: Any, items: Any = (), *_: Any, **__: Any) -> int:
    return (len(text) + ELEMENT) * len(items)


def _replaced(text: Any, old: Any = "", new: Any = "", *_: Any, **__: Any) -> int:
    return int(text.count(old)) * len(new) if isinstance(old, str) and isinstance(new, str) else 0


def _translated(text: Any, table: Any = None, *_: Any, **__: Any) -> int:
    new = table.values() if isinstance(table, Mapping) else ()
    return len(text) * max((len(one) for one in new if isinstance(one, str)), default=0)


def _formatted_date(value: Any, form: Any = "", *_: Any, **__: Any) -> int:
    return ELEMENT * len(form) if isinstance(form, str) else 0


_PLAIN = Cost()
_COSTS = {
    **dict.fromkeys(
        ("append", "extend", "get", "items", "keys", "setdefault", "update", "values"), Cost(constant=True)
    ),
    **dict.fromkeys(("list", "most_frequent", "reverse"), Cost(by_element=True)),
    **dict.fromkeys(
        ("map", "rejectattr", "selectattr", "groupby", "sort", "unique"), Cost(5, by_element=True, reads=True)
    ),
    **dict.fromkeys(("max", "min", "sum"), Cost(by_element=True, reads=True)),
    **dict.fromkeys(("reject", "select"), Cost(5, by_element=True)),
    **dict.fromkeys(("hex", "wordcount", "xmlattr"), Cost(5)),
    **dict.fromkeys(("encode", "title", "urlencode"), Cost(10)),
    **dict.fromkeys(("split", "splitlines"), Cost(ELEMENT)),
    **dict.fromkeys(("lstrip", "rfind", "rindex", "rpartition", "rstrip", "strip", "trim"), Cost(searches=True)),
    **dict.fromkeys(("batch", "slice"), Cost(by_element=True, width=_once)),
    **dict.fromkeys(("center", "ljust", "rjust", "zfill"), Cost(width=_once)),
    "expandtabs": Cost(8, width=_tabs),
    "indent": Cost(width=_lines),
    "join": Cost(growth=_joined),
    "pprint": Cost(200, most=5000),
    "replace": Cost(growth=_replaced),
    "rsplit": Cost(ELEMENT, searches=True),
    "strftime": Cost(growth=_formatted_date),
    "striptags": Cost(20, most=100_000),
    "tojson": Cost(5, width=_parts),
    "translate": Cost(growth=_translated),
    "urlize": Cost(100, most=20_000, searches=True),
    "wordwrap": Cost(50, most=20_000, searches=True),
}


def count_call(
    state: Rendering, name: str, value: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
) -> None:
    """Count what the filter or method `name` of `value` costs with these arguments, before it is called.

    Raises:
        CostError: more than may be spent, or a width, a number or a text is larger than any may be.
    """
    cost = _COSTS.get(name, _PLAIN)
    units = 0 if cost.constant or (name == "pop" and not args) else state.spend_on(value)
    if cost is _PLAIN and not kwargs:  # nearly always
        for argument in args:
            state.spend_on(argument)
        state.spend(STEP)
        return
    factor, more = cost.factor, 0
    arguments = (*args, *kwargs.values()) if kwargs else args
    for argument in arguments:
        size = state.spend_on(argument)
        if cost.searches and isinstance(value, str):
            more += len(value) * size // 20
        elif cost.reads and isinstance(argument, str):
            factor += argument.count(".") + argument.count(",")
    if cost.width is not None and arguments:
        _count_widths(state, name, cost.width(state, value), arguments)
    if cost.growth is not None:
        more += cost.growth(value, *args, **kwargs) if kwargs else cost.growth(value, *args)
    if cost.by_element and isinstance(value, str | bytes):
        units *= ELEMENT
    if cost.most and units > cost.most:
        raise CostError(f"it gives {name!r} a value of {units:,} units (characters), at most {cost.most:,}")
    state.spend(STEP + units * (factor - 1) + more)


def count_items(state: Rendering, name: str, items: Iterator[Any], args: tuple[Any, ...]) -> Iterator[Any]:
    """`items`, whose number is not known before, each counted as `count_call` counts the elements of a list."""
    cost = _COSTS.get(name, _PLAIN)
    paths = sum(text.count(".") + text.count(",") for text in args if isinstance(text, str))
    units = ELEMENT * (cost.factor + (paths if cost.reads else 0))
    for item in items:
        state.spend(units)
        yield item


def count_result(state: Rendering, result: Any) -> None:
    """Count a result whose size is not known before."""
    if isinstance(result, str | bytes):
        state.spend(len(result))
    elif isinstance(result, list | tuple | dict):
        state.spend(ELEMENT * len(result))


def _count_widths(state: Rendering, name: str, times: int, arguments: tuple[Any, ...]) -> None:
    for argument in arguments:
        if isinstance(argument, int | float):
            check_width(abs(argument), name)
            state.spend(int(abs(argument)) * times)
        elif isinstance(argument, str):
            state.spend(len(argument) * times)


def check_width(width: float, name: str = "format") -> None:
    """Refuse a width to which no text is padded in earnest.

    Raises:
        CostError: it is too large.
    """
    if width > MOST_WIDTH:
        raise CostError(f"it asks {name!r} for {width:,.6g} characters or pieces, at most {MOST_WIDTH:,}")


def check_key(key: Any) -> Any:
    """`key`, if looking it up takes no long time: the hash of a tuple is computed again each time.

    Raises:
        CostError: it is too long.
    """
    pending, parts = [key], 0
    while pending:
        part = pending.pop()
        if isinstance(part, str | bytes):
            if len(part) > MOST_KEY:
                raise CostError(f"it looks up a text of {len(part):,} characters, at most {MOST_KEY:,}")
        elif isinstance(part, tuple | list | dict):
            parts += 1 + len(part)
            if parts > MOST_KEY_PARTS:
                raise CostError(f"it looks up a value of more than {MOST_KEY_PARTS} parts")
            pending += part
    return key


def check_number(value: Any) -> Any:
    """`value`, if it is no number with which every later operation would take long.

    Raises:
        CostError: it has too many digits.
    """
    if isinstance(value, int):
        check_bits(value.bit_length())
    elif isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) > MOST_DIGITS:
        check_bits(MOST_BITS + 1)  # 1E+999999 is short until it is made a whole number
    return value


def check_bits(bits: int) -> None:
    """Refuse a whole number of so many bits.

    Raises:
        CostError: those are too many.
    """
    if bits > MOST_BITS:
        raise CostError(f"it computes a number of more than {MOST_DIGITS} digits")


def check_encoding(encoding: Any = "utf-8", *_: Any, **__: Any) -> None:
    """Refuse encodings other than the usual ones; the arguments are those of `encode`.

    Raises:
        SecurityError: it is not known.
    """
    if not isinstance(encoding, str) or encoding.lower().replace("_", "-") not in _ENCODINGS:
        raise SecurityError(f"a template may not use the encoding {encoding!r}; those known are {sorted(_ENCODINGS)}")
