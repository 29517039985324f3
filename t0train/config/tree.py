"""YAML as a tree of texts: nothing is interpreted before it is known what its key wants, and nothing costs much.

Files may come from strangers. So their size, depth and number of values are limited (aliases count as often as they
are used), there are no tags, and a key may not occur twice in a mapping.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import yaml

LARGEST_FILE = 256 * 1024
DEEPEST = 20
MOST_VALUES = 20_000

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOLEANS = {
    spelling: value for value in (True, False) for spelling in (str(value).lower(), str(value), str(value).upper())
}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_LONGEST_NUMBER = 64


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value as it is written.

    Attributes:
        text: its characters, without quotation marks.
        quoted: whether it had any (or was a block of text): then it is a text and nothing else.
        folder: what a relative path is relative to.
    """

    text: str
    quoted: bool
    folder: Path

    @property
    def value(self) -> bool | int | float | str | None:
        """What the core rules of YAML 1.2 make of it: `no`, `1:30`, `1_000` and dates are texts, `1e-3` is a number."""
        text = self.text
        if self.quoted:
            return text
        if text in _NULL:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        if len(text) > _LONGEST_NUMBER:
            return text
        if _INTEGER.fullmatch(text):
            return int(text, 10 if text[:2] not in ("0o", "0x") else 0)
        if _FLOAT.fullmatch(text):
            return float(text)
        return float(text.replace(".", "")) if _NOT_FINITE.fullmatch(text) else text


Tree: TypeAlias = "dict[str, Tree] | list[Tree] | Scalar"


def read_tree(text: str, folder: Path) -> Tree:
    """The one document of a YAML text; an empty one is an empty mapping.

    Args:
        text: the text.
        folder: what relative paths in it are relative to.

    Raises:
        ValueError: not YAML, or more of it than a configuration can need.
    """
    try:
        return _YamlReader(text, folder).document()
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


class _YamlReader:
    """Builds the tree from the parser's events, which PyYAML gives one by one and without recursion."""

    def __init__(self, text: str, folder: Path) -> None:
        self.events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)
        self.folder = folder
        self.anchors: dict[str, tuple[Tree, int]] = {}  # with the number of values that each expands to
        self.values = 0

    def document(self) -> Tree:
        next(self.events)  # the stream's start
        if isinstance(next(self.events), yaml.StreamEndEvent):
            return {}
        tree = self._node(next(self.events), 0)
        next(self.events)  # the document's end
        if not isinstance(event := next(self.events), yaml.StreamEndEvent):
            raise ValueError(f"a second document begins{_place(event)}, but one is expected.")
        return {} if isinstance(tree, Scalar) and tree.value is None else tree

    def _node(self, event: yaml.Event, depth: int) -> Tree:
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep{_place(event)}.")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        if event.tag is not None:
            raise ValueError(f"the tag {event.tag!r}{_place(event)} has no meaning here; remove it.")
        before = self.values
        self._count(1)
        if isinstance(event, yaml.ScalarEvent):
            tree: Tree = Scalar(event.value, event.style is not None, self.folder)
        elif isinstance(event, yaml.SequenceStartEvent):
            tree = self._sequence(depth)
        else:
            tree = self._mapping(depth)
        if event.anchor:
            self.anchors[event.anchor] = tree, self.values - before
        return tree

    def _sequence(self, depth: int) -> Tree:
        items: list[Tree] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return items

    def _mapping(self, depth: int) -> Tree:
        mapping: dict[str, Tree] = {}
        inserted: dict[str, Tree] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key, Scalar):
                raise ValueError(f"a key{_place(event)} is a list or a mapping, but a text is expected.")
            if key.text in mapping:
                raise ValueError(f"duplicate key {key.text}{_place(event)}; remove one of the two.")
            value = self._node(next(self.events), depth + 1)
            if key.text == "<<" and not key.quoted:
                for part in value if isinstance(value, list) else [value]:
                    if not isinstance(part, dict):
                        raise ValueError(f"`<<`{_place(event)} inserts no mapping; give an alias of one.")
                    inserted = {**part, **inserted}  # the first one wins, as YAML's merge keys have it
            else:
                mapping[key.text] = value
        return {**inserted, **mapping}

    def _alias(self, event: yaml.AliasEvent) -> Tree:
        if event.anchor not in self.anchors:
            raise ValueError(f"the alias *{event.anchor}{_place(event)} refers to nothing before it, or to itself.")
        tree, values = self.anchors[event.anchor]
        self._count(values)
        return tree

    def _count(self, values: int) -> None:
        self.values += values
        if self.values > MOST_VALUES:
            raise ValueError(f"it holds more than {MOST_VALUES:,} values (what an alias refers to is counted again).")


def _place(event: yaml.Event) -> str:
    return f" (line {event.start_mark.line + 1})" if event.start_mark else ""
