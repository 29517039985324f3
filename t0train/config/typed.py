"""From texts to values: what a key is declared to be decides how its text is read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from t0train.config.paths import Located
from t0train.config.tree import Scalar, Tree

SCALARS = (str, int, float, bool)


class Refused:
    """A value that no key takes, and why. It takes the value's place, so that validation complains about it."""

    def __init__(self, text: str, reason: str = "") -> None:
        self.text = text
        self.reason = reason

    def __repr__(self) -> str:
        return self.text


def typed(tree: Tree, annotation: Any, where: str = "") -> Any:
    """Plain values for pydantic. A key that takes texts gets the text as it is written (`name: 010` is "010").

    Any other key gets what YAML 1.2 makes of it, and a text never passes for a number, nor a number for a truth value.
    A map, a list, or a text that is empty by default is empty where null is given.

    Args:
        tree: what was read.
        annotation: the type of the key, or the model of the whole file.
        where: the dotted key.

    Raises:
        ValueError: a value that nobody takes, where any would be valid.
    """
    kinds = branches(annotation)
    if isinstance(tree, dict):
        return _mapping(tree, kinds, where)
    if isinstance(tree, list):
        kind = _argument(kinds, (list, tuple), 0)
        return [typed(item, Any if kind is None else kind, f"{where}.{number}") for number, item in enumerate(tree)]
    value = _null(tree, kinds) if tree.value is None else _scalar(tree, kinds)
    if isinstance(value, Refused) and Any in kinds:
        raise ValueError(f"{where}: found {value}. {value.reason}")
    return value


def branches(annotation: Any) -> list[Any]:
    """The types that an annotation allows: unions opened, details dropped, literals by the types of their values."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return branches(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [kind for part in get_args(annotation) for kind in branches(part)]
    if origin is Literal:
        return list(dict.fromkeys(type(value) for value in get_args(annotation)))
    return [annotation]


def model_of(kinds: list[Any]) -> type[BaseModel] | None:
    """The section among these types."""
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def map_kind(kinds: list[Any]) -> Any:
    """The type of the values of the map among these types; None without one, `Any` if it is not said."""
    return _argument(kinds, (dict,), 1)


def merge(below: Tree, above: Tree, annotation: Any) -> Tree:
    """`above` laid over `below`: sections and maps are merged, `{}` clears one; anything else takes the other's place.

    Null takes an entry out of a map; in a section it is a value.

    Args:
        below: e.g. what a file includes.
        above: e.g. the file.
        annotation: the type of both.
    """
    if not (isinstance(below, dict) and isinstance(above, dict) and above):
        return above
    kinds = branches(annotation)
    section, value_kind = model_of(kinds), map_kind(kinds)
    merged = dict(below)
    for key, value in above.items():
        if section is None and key in below and is_null(value):
            del merged[key]
        elif key in below:
            field = section.model_fields.get(key) if section else None
            merged[key] = merge(below[key], value, field.annotation if field else value_kind)
        else:
            merged[key] = value
    return merged


def is_null(tree: Tree) -> bool:
    """Whether it is a single value that YAML reads as null."""
    return isinstance(tree, Scalar) and tree.value is None


def dotted_keys(model: type[BaseModel]) -> Iterator[str]:
    """Every key below the sections of a model: `train.batch.rows`."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from (f"{name}.{key}" for key in dotted_keys(inner))
        else:
            yield name


def _argument(kinds: list[Any], containers: tuple[type, ...], index: int) -> Any:
    found = next((kind for kind in kinds if get_origin(kind) in containers), None)
    return None if found is None else get_args(found)[index]


def _mapping(tree: dict[str, Tree], kinds: list[Any], where: str) -> dict[str, Any]:
    section = model_of(kinds)
    fields = section.model_fields if section else {}
    kind = map_kind(kinds)
    values = {}
    for key, value in tree.items():
        below = f"{where}.{key}" if where else key
        if key in fields:
            values[key] = _of_field(value, fields[key], below)
        else:
            values[key] = typed(value, Any if kind is None else kind, below)
    return values


def _of_field(tree: Tree, field: FieldInfo, where: str) -> Any:
    if field.default == "" and isinstance(tree, Scalar) and tree.value is None and tree.text != "~":
        return ""
    return typed(tree, field.annotation, where)


def _null(scalar: Scalar, kinds: list[Any]) -> Any:
    if NoneType in kinds or Any in kinds:
        return None
    for container in (dict, list):
        if any(get_origin(kind) is container for kind in kinds):
            return container()
    if model_of(kinds):
        return Refused("nothing", "Write {} to give every key below it T0's value, or leave the key out.")
    if scalar.text == "~" and str in kinds:
        return Refused("~", 'That is null in YAML; write "~" in quotation marks, or $HOME, for your home folder.')
    return Refused(scalar.text or "nothing")


def _scalar(scalar: Scalar, kinds: list[Any]) -> Any:
    value, wanted = scalar.value, [kind for kind in kinds if kind in SCALARS]
    if wanted == [str]:
        return Located(scalar.text, scalar.folder)
    if wanted and not any(_fits(value, kind) for kind in wanted):
        return Refused(repr(scalar.text) if isinstance(value, str) else scalar.text)
    if isinstance(value, str):
        return value if Any in kinds else Located(value, scalar.folder)
    if isinstance(value, int) and _has_leading_zero(scalar.text):
        return Refused(scalar.text, "Some programs read a number with a leading zero as octal; write it without.")
    if not wanted and isinstance(value, float) and not math.isfinite(value):
        return Refused(scalar.text, "Input should be a finite number.")
    return value


def _fits(value: Any, kind: type) -> bool:
    if kind in (int, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind)


def _has_leading_zero(text: str) -> bool:
    digits = text.lstrip("+-")
    return len(digits) > 1 and digits[0] == "0" and digits.isdecimal()
