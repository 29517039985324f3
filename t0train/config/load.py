"""From a YAML file and `key=value` overrides to a checked configuration, or to one sentence for each mistake in it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from t0train.config.paths import ConfigPath, Located, escape
from t0train.config.schema import RunConfig
from t0train.config.tree import LARGEST_FILE, Scalar, Tree, read_tree
from t0train.config.values import (
    Refused,
    dotted_keys,
    escape_reference,
    interpolate,
    merge,
    override_tree,
    path_keys,
    typed,
)
from t0train.core.errors import UserError, nearest
from t0train.core.files import make_folder, write_atomic
from t0train.core.hashing import content_hash
from t0train.core.run_folder import RunFolder, similar_folders
from t0train.core.text import decode

Model = TypeVar("Model", bound=BaseModel)
INCLUDES = "defaults"
_NAME_OR_PATH = ConfigPath(other="name")
_MOST_LINES, _MOST_CHARACTERS = 20, 200  # of what is said about a configuration that is not valid


def configs_folder() -> Path:
    """`configs/` of the checkout, or the copy inside an installed package."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_configs"
    return installed if installed.is_dir() else package.parent / "configs"


def locate(kind: str, name_or_path: str, folder: Path | None = None) -> Path:
    """The file `name_or_path`, or `configs/<kind>/<name>.yaml`.

    Args:
        kind: runs, evals or mixtures.
        name_or_path: `~` and `$VAR` are expanded.
        folder: what a relative path is relative to; default: the working directory.

    Raises:
        UserError: neither exists; the message names the nearest known names.
    """
    try:
        resolved = _NAME_OR_PATH.resolve(Located(name_or_path, folder or Path.cwd()))
    except ValueError as error:
        raise UserError(f"{name_or_path}: {error}.") from error
    if os.path.isfile(resolved):
        return Path(resolved)
    named = configs_folder() / kind
    if os.path.isfile(named / f"{resolved}.yaml"):
        return named / f"{resolved}.yaml"
    known = [file.stem for file in named.glob("*.yaml")]
    raise UserError(
        f"no file {resolved}, and no such name in {named}; {nearest(Path(name_or_path).stem, known)}"
        if os.path.isabs(resolved)
        else f"no file {name_or_path}, and no such name in {named}; {nearest(name_or_path, known)}"
    )


def copy_shipped(kind: str, name: str, file: Path) -> None:
    """Copy `configs/<kind>/<name>.yaml` into a new file, whose first line then names the schema by its absolute path.

    Raises:
        UserError: there is no such configuration, the file exists, or is not called `*.yaml`.
    """
    named = configs_folder() / kind
    shipped = {path.stem: path for path in named.glob("*.yaml")}
    if name not in shipped:
        raise UserError(f"no configuration {name!r} in {named}; {nearest(name, shipped)}")
    if file.suffix not in (".yaml", ".yml"):
        raise UserError(f"{file} does not end in .yaml, which distinguishes a file from a name; give it that ending.")
    if os.path.lexists(file):
        raise UserError(f"{file} exists, and nothing is written over it; choose another name, or remove it.")
    make_folder(file.parent)
    text = shipped[name].read_text(encoding="utf-8")
    schema = f"$schema={configs_folder() / 'schema'}/"
    write_atomic(file, text.replace("$schema=../schema/", schema, 1))


def load_yaml(model: type[Model], kind: str, path: Path, overrides: Sequence[str] = ()) -> Model:
    """Read a YAML file with its includes (`defaults: [other.yaml, ...]`), apply `key=value` overrides, and check it.

    Includes are files, relative to the including one, or names in configs/<kind>/; later ones win, and the file's own
    keys win over them. Sections and maps are merged, `{}` clears one; lists are replaced. Values may refer to other
    keys (`${name}`). Relative paths are relative to the file that names them, in overrides to the working directory.

    Args:
        model: what the file is to be.
        kind: runs, evals or mixtures.
        path: the file.
        overrides: e.g. `train.steps=100`.

    Raises:
        UserError: missing file, broken YAML, an include cycle, a malformed override, unknown keys, wrong values.
    """
    tree = merged = _read(model, kind, path, ())
    for override in overrides:
        merged = merge(merged, override_tree(model, override), model)
    if overrides:
        merged = _without_output_of_another_run(model, tree, merged, [text.partition("=")[0] for text in overrides])
    return check(model, _plain(model, merged, path), path)


def read_unchecked(model: type[BaseModel], path: Path) -> dict[str, Any]:
    """The values of a YAML file as they are, for those who also read what an older version of t0train has written.

    Raises:
        UserError: the file cannot be read, or is not YAML.
    """
    values: dict[str, Any] = json.loads(json.dumps(_plain(model, _read_file(path), path), default=str))
    return values


def _plain(model: type[BaseModel], tree: Tree, path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = typed(interpolate(model, tree), model)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    return values


def _read(model: type[BaseModel], kind: str, path: Path, including: tuple[Path, ...]) -> Tree:
    """The tree of a file, laid over those that it includes."""
    if path.resolve() in including:
        raise UserError(f"{path} includes itself through {including[-1]}; remove one of the `{INCLUDES}` entries.")
    content = _read_file(path)
    includes = _includes(path, content.pop(INCLUDES, []))
    merged: Tree = {}
    for name in includes:
        included = _read(model, kind, _include(kind, path, name), (*including, path.resolve()))
        merged = _over(model, merged, included)
    return _over(model, merged, content)


def _read_file(path: Path) -> dict[str, Tree]:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from error
    if len(content) > LARGEST_FILE:
        raise UserError(f"{path} has more than {LARGEST_FILE:,} bytes, the most that a configuration may have.")
    try:
        tree = read_tree(decode(content, str(path)), path.parent.absolute())
    except ValueError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds no keys at its top level, but a mapping of keys to values is expected.")
    return tree


def _includes(path: Path, entry: Tree) -> list[str]:
    entries = entry if isinstance(entry, list) else [entry]
    texts = [item.text for item in entries if isinstance(item, Scalar) and isinstance(item.value, str)]
    if len(texts) != len(entries):
        raise UserError(f"{path}: `{INCLUDES}` is no text, but a file name or a list of them is expected.")
    return texts


def _include(kind: str, path: Path, name: str) -> Path:
    try:
        return locate(kind, name, path.parent.absolute())
    except UserError as error:
        raise UserError(
            f"{path}: `{INCLUDES}` names {name!r}, but there is no file of that name in its folder; {error}"
        ) from error


def _over(model: type[BaseModel], below: Tree, above: Tree) -> Tree:
    """A file laid over what it includes. Nothing in it is no order to clear everything."""
    if not below or not above:
        return below or above
    assert isinstance(above, dict)
    return _without_output_of_another_run(model, below, merge(below, above, model), above)


def _without_output_of_another_run(
    model: type[BaseModel], below: Tree, merged: Tree, set_above: Sequence[str] | dict[str, Tree]
) -> Tree:
    """Take an inherited `output` out of a run that has another name or seed, so that it does not write into it.

    An `output` that is set together with the name or seed stays, and one that follows them (`out/${name}`).
    """
    assert isinstance(below, dict)
    assert isinstance(merged, dict)
    output = merged.get("output")
    if model is not RunConfig or not isinstance(output, Scalar) or "output" in set_above:
        return merged
    followed = re.findall(r"\$\{(\w+)\}", output.text)
    for key in {"name", "seed"} - set(followed):
        default = RunConfig.model_fields[key].default
        before, after = (_value(tree.get(key), default) for tree in (below, merged))
        if before != after:
            return {name: value for name, value in merged.items() if name != "output"}
    return merged


def _value(tree: Tree | None, default: Any) -> Any:
    return tree.text if isinstance(tree, Scalar) else str(default)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The checked configuration of a run.

    Args:
        path: a YAML file, or the name of one in configs/runs/.
        overrides: trailing `key=value` arguments, e.g. `train.steps=100`.

    Raises:
        UserError: unknown key (with the nearest known one), wrong type or value, unreadable file.
    """
    return load_yaml(RunConfig, "runs", locate("runs", str(path)), overrides)


class _Dumper(yaml.SafeDumper):
    """Writes texts such that they are read as texts."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    is_text = isinstance(Scalar(text, False, Path()).value, str)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_text else "'")


_Dumper.add_representer(str, _text)


def load_run(source: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of a run folder, or `load_config` of a YAML file or a name in configs/runs/.

    Raises:
        UserError: there is none of these; the message names the nearest run folder or name.
    """
    folder = RunFolder(Path(source).expanduser())
    if folder.exists():
        return load_config(folder.config, overrides)
    if "/" in source and not folder.path.exists() and (hint := similar_folders(folder.path)):
        raise UserError(f"there is no file and no run folder {source}; {hint}")
    return load_config(source, overrides)


def dump_config(config: BaseModel) -> str:
    """The resolved configuration as YAML: every key, in the schema's order. `load_config` gives it back."""
    values = _spelt(config.model_dump(mode="json"), "", set(path_keys(type(config))))
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _spelt(value: Any, key: str, paths: set[str]) -> Any:
    """A value with the dollar signs of its texts escaped."""
    if isinstance(value, dict):
        return {name: _spelt(item, f"{key}.{name}".lstrip("."), paths) for name, item in value.items()}
    if isinstance(value, list):
        return [_spelt(item, key, paths) for item in value]
    if not isinstance(value, str):
        return value
    return escape_reference(escape(value) if key in paths else value)


def config_hash(config: BaseModel) -> str:
    """Content hash of the resolved configuration."""
    return content_hash(config.model_dump(mode="json"))


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
