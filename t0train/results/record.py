"""Records: plain values with strict types and bounds, and how a file becomes one.

Keys that a later t0train adds are ignored; a file with a later `schema_version` is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from t0train.core.errors import UserError

Version = Literal[1]
SCHEMA_VERSION: Version = 1
MOST = 10**15  # of anything that is counted: floats hold it exactly
_ROUNDING = 1e-9
_MOST_PROBLEMS = 3  # named in a message

T = TypeVar("T")
R = TypeVar("R")
Count = Annotated[int, Field(ge=0, le=MOST)]
Share = Annotated[float, Field(ge=-_ROUNDING, le=1 + _ROUNDING)]
"""An accuracy or a probability."""
Points = Annotated[float, Field(ge=-2, le=2)]
"""A difference of two shares, or the end of an interval."""
Interval = Annotated[tuple[Points, Points], Field(strict=False)]  # JSON knows lists only
Many = Annotated[tuple[T, ...], Field(strict=False)]
AtLeastOne = Annotated[tuple[T, ...], Field(strict=False, min_length=1)]


class Record(BaseModel):
    """Keys with their types; those without a default must be there."""

    model_config = ConfigDict(frozen=True, strict=True)

    def as_json(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return self.model_dump(mode="json")


def read_record(kind: type[R], path: Path) -> R:
    """The content of a JSON file as a record.

    Raises:
        UserError: the file is damaged or of another kind; names it and its first wrong keys.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    return check_record(kind, value, str(path))


def check_record(kind: type[R], value: Any, where: str) -> R:
    """Plain values, of a file or of a part of one (`where`), as a record. Raises as `read_record`."""
    version = value.get("schema_version", SCHEMA_VERSION) if isinstance(value, dict) else SCHEMA_VERSION
    if type(version) is int and version > SCHEMA_VERSION:
        raise UserError(
            f"{where} was written by a later t0train: schema_version is {version}, and this t0train reads "
            f"{SCHEMA_VERSION}; update t0train."
        )
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise UserError(_complaint(error, where)) from error


def _complaint(error: ValidationError, where: str) -> str:
    problems = error.errors(include_url=False)
    named = [
        f"{'.'.join(map(str, problem['loc'])) or 'as a whole'}: {_describe(problem)}"
        for problem in problems[:_MOST_PROBLEMS]
    ]
    more = f"; and {len(problems) - _MOST_PROBLEMS} more" if len(problems) > _MOST_PROBLEMS else ""
    return (
        f"{where} is not what t0train writes: {'; '.join(named)}{more}. It is damaged, or of another program: have it "
        "written again, or remove it."
    )


def _describe(problem: Any) -> str:
    if problem["type"] == "missing":
        return "missing"
    wants_keys = problem["type"] in ("model_type", "dict_type")
    message = "Input should be a mapping of keys to values" if wants_keys else str(problem["msg"])
    found = repr(problem["input"])
    return f"{message[0].lower()}{message[1:]}, found {found if len(found) <= 60 else found[:60] + ' ...'}"
