r"""From texts to values: what a key is declared to be decides how its text is read, in files and in `key=value`.

A text may refer to another key: `${name}`, and nothing else; `\${` is a plain `${`. There are no resolvers: a file from
a stranger must not read environment variables, or call anything, by being loaded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from t0train.config.paths import ConfigPath, Located, escape
from t0train.config.tree import Scalar, Tree, read_tree
from t0train.core.errors import UserError, nearest

SCALARS = (str, int, float, bool)
_REFERENCE = re.compile(r"(\\?)\$\{([^{}$\\]*)(\}?)")
_KEY = re.compile(r"[A-Za-z_]\w*(\.[^.\s:,]+)*")
_LONGEST = 10_000  # characters
_DEEPEST = 20


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


def leaf_fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """Every key below the sections of a model, by its dotted name (`train.batch.rows`), in the schema's order."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from ((f"{name}.{key}", leaf) for key, leaf in leaf_fields(inner))
        else:
            yield name, field


def dotted_keys(model: type[BaseModel]) -> list[str]:
    """The dotted names of every key of a model."""
    return [key for key, _ in leaf_fields(model)]


def path_keys(model: type[BaseModel]) -> dict[str, ConfigPath]:
    """Every key of a model that holds a path, or a list of paths, by its dotted name."""
    found: dict[str, ConfigPath] = {}
    for key, field in leaf_fields(model):
        of_items = (detail for item in get_args(field.annotation) for detail in getattr(item, "__metadata__", ()))
        found |= ((key, detail) for detail in (*field.metadata, *of_items) if isinstance(detail, ConfigPath))
    return found


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


def override_tree(model: type[BaseModel], override: str) -> Tree:
    """The tree with that one key.

    Lists, maps and quoted texts are YAML: `[a, b]`, `{a: 1}`, `'010'`. Everything else is a single value as written,
    `#` and all. Below a map whose values are single, the rest of the key is one name: `data.splits.my.data=test`.

    Args:
        model: what the configuration is to be.
        override: e.g. `train.steps=100`.

    Raises:
        UserError: not of that form, or a list, map or quoted text that is not YAML.
    """
    key, equals, text = override.partition("=")
    parts, annotation = _steps(model, key.strip())
    if not equals or not all(parts):
        raise UserError(f"override {override!r} is not of the form key=value, e.g. train.steps=100.")
    try:
        tree = _value(text.strip(), annotation)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"override {override!r} cannot be read: {reason}") from error
    for part in reversed(parts):
        tree = {part: tree}
    return tree


def _steps(model: type[BaseModel], key: str) -> tuple[list[str], Any]:
    """The names on the way to a key, and the type of what is there."""
    parts: list[str] = []
    annotation: Any = model
    while True:
        kinds = branches(annotation)
        section, value = model_of(kinds), map_kind(kinds)
        if value not in (None, Any):
            return [*parts, key], value
        head, dot, key = key.partition(".")
        parts.append(head)
        field = section.model_fields.get(head) if section else None
        annotation = field.annotation if field else Any
        if not dot:
            return parts, annotation


def _value(text: str, annotation: Any) -> Tree:
    kinds = branches(annotation)
    takes_text = [kind for kind in kinds if kind in SCALARS] == [str] == kinds
    if not text.startswith(("'", '"') if takes_text else ("'", '"', "[", "{")):
        return Scalar(text, quoted=False, folder=Path.cwd())
    tree = read_tree(text, Path.cwd())
    root = yaml.compose(text, yaml.SafeLoader)
    if root and (end := root.end_mark.index) < len(text):
        raise ValueError(f"{text[end:]!r} follows its end; put the whole value in quotation marks.")
    return tree


def interpolate(model: type[BaseModel], tree: Tree) -> Tree:
    """Every reference replaced by what it refers to: another single value, or its default.

    Raises:
        ValueError: anything but a key in the braces, no such key, a section or list, keys that refer to each other.
    """
    return _Interpolation(model, tree).of(tree, ())


def escape_reference(text: str) -> str:
    """A text as a file must spell it, such that it is not taken for a reference."""
    return text.replace("${", "\\${")


class _Interpolation:
    def __init__(self, model: type[BaseModel], root: Tree) -> None:
        self.model = model
        self.root = root
        self.paths = path_keys(model)
        self.found: dict[str, Scalar] = {}

    def of(self, tree: Tree, above: tuple[str, ...]) -> Tree:
        """The tree without references; `above` are the keys that refer to it."""
        if isinstance(tree, dict):
            return {key: self.of(value, above) for key, value in tree.items()}
        if isinstance(tree, list):
            return [self.of(item, above) for item in tree]
        return self._scalar(tree, above)

    def _scalar(self, scalar: Scalar, above: tuple[str, ...]) -> Scalar:
        if "${" not in scalar.text:
            return scalar
        whole = _REFERENCE.fullmatch(scalar.text)
        if whole and not whole[1]:
            return self._target(whole, scalar.text, above)
        text = _REFERENCE.sub(
            lambda found: found[0][1:] if found[1] else self._target(found, scalar.text, above).text, scalar.text
        )
        if len(text) > _LONGEST:
            raise ValueError(f"{scalar.text[:80]!r} has more than {_LONGEST:,} characters with what it refers to.")
        return replace(scalar, text=text, quoted=True)

    def _target(self, found: re.Match[str], text: str, above: tuple[str, ...]) -> Scalar:
        key = found[2]
        if not found[3] or not _KEY.fullmatch(key):
            raise ValueError(
                f"{text[:80]!r} holds a reference that is not understood: only ${{key}} with the dotted name of "
                "another key is. Nothing is called or calculated; in paths, $VAR is an environment variable; "
                "\\${ is a plain ${."
            )
        if key in above:
            raise ValueError(f"{' -> '.join((*above, key))}: these keys refer to each other in a circle.")
        if len(above) >= _DEEPEST:
            raise ValueError(f"{' -> '.join(above[:3])} -> ...: references go more than {_DEEPEST} deep.")
        if key not in self.found:
            target = self._scalar(self._look_up(key, text), (*above, key))
            self.found[key] = self._absolute(key, target)
        return self.found[key]

    def _look_up(self, key: str, text: str) -> Scalar:
        tree: Any = self.root
        annotation: Any = self.model
        default: Any = None
        for part in key.split("."):
            model = model_of(branches(annotation))
            field = model.model_fields.get(part) if model else None
            tree = tree.get(part) if isinstance(tree, dict) else None
            annotation = field.annotation if field else None
            default = field.default if field else None
        if tree is None and isinstance(default, str | int | float) and default is not PydanticUndefined:
            tree = Scalar(str(default), isinstance(default, str), Path.cwd())
        if tree is None:
            hint = f"; in paths, ${key} is the environment variable" if key.isidentifier() else ""
            known = nearest(key, dotted_keys(self.model))
            raise ValueError(f"{text[:80]!r} refers to {key}, which is no key with a value{hint}. {known}")
        if not isinstance(tree, Scalar):
            raise ValueError(f"{text[:80]!r} refers to {key}, which is no single value.")
        return tree

    def _absolute(self, key: str, target: Scalar) -> Scalar:
        """A path as it will be, as it may be relative to another folder than the text that refers to it."""
        if key not in self.paths:
            return target
        if not target.text:
            raise ValueError(f"a path refers to {key}, which is empty.")
        return replace(target, text=escape(self.paths[key].resolve(Located(target.text, target.folder))), quoted=True)
