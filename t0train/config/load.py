"""From a YAML file and `key=value` overrides to a checked configuration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from t0train.config.schema import RunConfig
from t0train.core.errors import UserError, nearest
from t0train.core.hashing import content_hash
from t0train.core.text import read_text

Model = TypeVar("Model", bound=BaseModel)
_INCLUDES = "defaults"


def configs_folder() -> Path:
    """`configs/` of the checkout, or the copy inside an installed package."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_configs"
    return installed if installed.is_dir() else package.parent / "configs"


def locate(kind: str, name_or_path: str) -> Path:
    """The file `name_or_path`, or `configs/<kind>/<name>.yaml`.

    Raises:
        UserError: neither exists; the message names the nearest known names.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    named = configs_folder() / kind / f"{name_or_path}.yaml"
    if named.is_file():
        return named
    known = [file.stem for file in (configs_folder() / kind).glob("*.yaml")]
    raise UserError(f"no file {name_or_path}, and no such name in {named.parent}; {nearest(path.stem, known)}")


def resolve_yaml(kind: str, path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a YAML file with its includes (`defaults: [other.yaml, ...]`), then apply `key=value` overrides.

    Includes are files beside the including one, or names in configs/<kind>/; later ones win, and the file's own keys
    win over them. Values may refer to other keys (`${name}`).

    Raises:
        UserError: missing file, broken YAML, an include cycle, a malformed override.
    """
    merged: Any = _read(kind, path, ())
    for override in overrides:
        if "=" not in override or override.startswith("="):
            raise UserError(f"override {override!r} is not of the form key=value, e.g. train.steps=100.")
        try:
            merged = OmegaConf.merge(merged, OmegaConf.from_dotlist([override]))
        except (OmegaConfBaseException, yaml.YAMLError) as error:
            raise UserError(f"override {override!r} cannot be read: {str(error).splitlines()[0]}.") from error
    try:
        resolved = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {str(error).splitlines()[0]}") from error
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def _read(kind: str, path: Path, including: tuple[Path, ...]) -> DictConfig:
    if path.resolve() in including:
        raise UserError(f"{path} includes itself by way of {including[-1]}; remove one of the `{_INCLUDES}` entries.")
    try:
        content = OmegaConf.create(read_text(path))
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, DictConfig):
        raise UserError(f"{path} holds no keys at its top level, but a mapping of keys to values is expected.")
    includes = content.pop(_INCLUDES, [])
    if isinstance(includes, str):
        includes = [includes]
    if not isinstance(includes, Sequence):
        raise UserError(f"{path}: `{_INCLUDES}` is {includes!r}, but a file name or a list of them is expected.")
    parts = [_read(kind, _include(kind, path, str(name)), (*including, path.resolve())) for name in includes]
    merged = OmegaConf.merge(*parts, content)
    assert isinstance(merged, DictConfig)
    return merged


def _include(kind: str, path: Path, name: str) -> Path:
    beside = path.parent / name
    if beside.is_file():
        return beside
    try:
        return locate(kind, name)
    except UserError as error:
        raise UserError(f"{path}: `{_INCLUDES}` names {name!r}, but there is no file {beside}; {error}") from error


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The checked configuration of a run.

    Args:
        path: a YAML file, or the name of one in configs/runs/.
        overrides: trailing `key=value` arguments, e.g. `train.steps=100`.

    Raises:
        UserError: unknown key (with the nearest known one), wrong type or value, unreadable file.
    """
    file = locate("runs", str(path))
    return check(RunConfig, resolve_yaml("runs", file, overrides), file)


def check(model: type[Model], values: dict[str, Any], origin: Path) -> Model:
    """Validate `values` and turn pydantic's complaints into one message for the user."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines: dict[str, str] = {}
        for problem in error.errors():  # a value that fits no branch of a union has one problem for each branch
            key, complaint = _complaint(model, problem)
            lines[key] = f"{lines[key]} Or: {problem['msg']}." if key in lines else complaint
        raise UserError(f"{origin} is not a valid {model.__name__}:\n  " + "\n  ".join(lines.values())) from error


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
        return key, f"{key}: found {found!r}, but a section with keys of its own is expected."
    hint = " (T5 overflows in fp16; use bf16)" if found in ("fp16", "float16") else ""
    return key, f"{key}: found {found!r}. {message}{hint}." if key else f"{message}."


def _suggest(model: type[BaseModel], where: Sequence[str | int]) -> str:
    """What an unknown key may have been meant to be: a key of that name elsewhere, or a close one in its section."""
    elsewhere = [key for key in _dotted_keys(model) if key.rpartition(".")[2] == where[-1]]
    if elsewhere:
        return "did you mean " + " or ".join(repr(key) for key in elsewhere) + "?"
    section: type[BaseModel] = model
    for part in where[:-1]:
        inner = _section(section.model_fields[part]) if isinstance(part, str) else section
        assert inner is not None  # only sections complain about unknown keys
        section = inner
    return nearest(str(where[-1]), section.model_fields)


def _dotted_keys(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from (f"{name}.{key}" for key in _dotted_keys(inner))
        else:
            yield name


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


def dump_config(config: BaseModel) -> str:
    """The resolved configuration as YAML: every key, in the schema's order."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def config_hash(config: BaseModel) -> str:
    """Content hash of the resolved configuration."""
    return content_hash(config.model_dump(mode="json"))
