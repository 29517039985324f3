"""`key=value` on the command line: the value is read as the same value in a file would be, and never cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from t0train.config.tree import Scalar, Tree, read_tree
from t0train.config.typed import SCALARS, branches, map_kind, model_of
from t0train.core.errors import UserError


def override_tree(model: type[BaseModel], override: str) -> Tree:
    """The tree with that one key.

    Lists, maps and quoted texts are YAML: `[a, b]`, `{a: 1}`, `'010'`. Everything else is a single value as it stands,
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
        raise ValueError(f"{text[end:]!r} stands behind its end; put the whole value in quotation marks.")
    return tree
