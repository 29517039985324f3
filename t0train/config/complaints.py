"""What a configuration is told when it is not valid: one sentence for each mistake, all at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from t0train.config.typed import Refused, dotted_keys
from t0train.core.errors import UserError, nearest

Model = TypeVar("Model", bound=BaseModel)
_MOST_LINES, _MOST_CHARACTERS = 20, 200


def check(model: type[Model], values: dict[str, Any], origin: Path) -> Model:
    """Validate `values` and turn pydantic's complaints into one message for the user."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines: dict[str, str] = {}
        for problem in error.errors():  # a value that fits no branch of a union has one problem for each branch
            key, complaint = _complaint(model, problem)
            lines[key] = f"{lines[key]} Or: {problem['msg']}." if key in lines else complaint
        shown = list(lines.values())[:_MOST_LINES]
        if len(lines) > len(shown):
            shown.append(f"... and {len(lines) - len(shown)} more.")
        raise UserError(f"{origin} is not a valid {model.__name__}:\n  " + "\n  ".join(shown)) from error


def _complaint(model: type[BaseModel], problem: Any) -> tuple[str, str]:
    """The dotted key that a problem is about, and a sentence for the user."""
    where = _without_branches(model, problem["loc"])
    key = ".".join(str(part) for part in where)
    found, message = problem.get("input"), str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return key, f"unknown key {key!r}: {_suggest(model, where)}"
    if problem["type"] == "missing":
        return key, f"key {key!r} is missing."
    if problem["type"] == "model_type":
        reason = getattr(found, "reason", "")
        return (
            key,
            f"{key}: found {_shown(found)}, but a section with keys of its own is expected. {reason}".rstrip(),
        )
    if isinstance(found, Refused) and found.reason:
        return key, f"{key}: found {_shown(found)}. {found.reason}"
    hint = " (T5 overflows in fp16; use bf16)" if found in ("fp16", "float16") else ""
    sentence = f"{message}{hint}" if message.endswith("?") else f"{message}{hint}."
    return key, f"{key}: found {_shown(found)}. {sentence}" if key else sentence


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."


def _suggest(model: type[BaseModel], where: Sequence[str | int]) -> str:
    """What an unknown key may have been meant to be: a key of that name elsewhere, or a close one in its section."""
    elsewhere = [key for key in dotted_keys(model) if key.rpartition(".")[2] == where[-1]]
    if elsewhere:
        return "did you mean " + " or ".join(repr(key) for key in elsewhere) + "?"
    section: type[BaseModel] = model
    for part in where[:-1]:
        inner = _section(section.model_fields[part]) if isinstance(part, str) else section
        assert inner is not None  # only sections complain about unknown keys
        section = inner
    return nearest(str(where[-1]), section.model_fields)


def _without_branches(model: type[BaseModel], where: Sequence[str | int]) -> list[str | int]:
    """`where` without the parts with which pydantic names the branch of a union."""
    kept: list[str | int] = []
    section: type[BaseModel] | None = model
    parts = iter(where)
    for part in parts:
        kept.append(part)
        field = section.model_fields.get(str(part)) if section else None
        if field is not None:
            if _is_union(field.annotation):
                next(parts, None)
            section = _section(field)
    return kept


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType) and len(set(get_args(annotation)) - {NoneType}) > 1


def _section(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a section, or of the items of a list of sections."""
    candidates = [field.annotation, *get_args(field.annotation)]
    return next((kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
