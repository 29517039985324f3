"""`t0train config`: show, compare, check and copy configurations; what keys there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from t0train.cli.arguments import Json, Overrides, RunOrConfig
from t0train.core.console import ConsoleTable, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel

    from t0train.config.reference import Key

app = typer.Typer(help="Show, compare, check and copy configurations; list their keys.", no_args_is_help=True)

Kind = Literal["run", "suite", "mixture"]
FOLDERS: dict[str, str] = {"run": "runs", "suite": "evals", "mixture": "mixtures"}
"""Where each kind of configuration is in configs/."""


@app.command()
def show(config: RunOrConfig, overrides: Overrides = None, as_json: Json = False) -> None:
    """Print every key of a configuration with its resolved value, its content hash and how it differs from T0.

    Example: t0train config show toy train.steps=100
    """
    from t0train.config import config_hash, config_remarks, deviations, dump_config, load_run

    resolved = load_run(config, overrides or ())
    found = deviations(resolved)
    if as_json:
        document = {
            "config": resolved.model_dump(mode="json"),
            "hash": config_hash(resolved),
            "deviations": [deviation.as_dict() for deviation in found],
            "remarks": config_remarks(resolved),
        }
        print_json(document)
        return
    print(dump_config(resolved), end="")
    print(f"# content hash: {config_hash(resolved)}")
    print(
        "# differs from the T0 recipe in:" if found else "# equals the T0 recipe in every key that matters to training"
    )
    for deviation in found:
        print(f"#   {deviation.sentence}")
    for remark in config_remarks(resolved):
        print(f"# remark: {remark}")


@app.command()
def diff(first: RunOrConfig, second: RunOrConfig, as_json: Json = False) -> None:
    """List the keys in which two configurations differ.

    Example: t0train config diff t0 t0_3b
    """
    from t0train.config import load_run
    from t0train.config.deviations import flatten

    left, right = (
        {leaf.key: leaf.value for leaf in flatten(load_run(name))} for name in (first, second)
    )  # both hold every key of the schema
    differing = {key: (left[key], right[key]) for key in left if left[key] != right[key]}
    if as_json:
        rows = [{"key": key, "first": values[0], "second": values[1]} for key, values in differing.items()]
        print_json(rows)
    elif differing:
        _print_differences(first, second, differing)
    else:
        print(f"{first} and {second} are the same configuration.")


def _print_differences(first: str, second: str, differing: dict[str, tuple[Any, Any]]) -> None:
    table = ConsoleTable(["key", first, second])
    for key, values in differing.items():
        table.add(key, *(_shown(value) for value in values))
    table.show()


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


@app.command()
def validate(config: RunOrConfig, overrides: Overrides = None) -> None:
    """Check a configuration: exit code 0 when it is valid, 2 with the reasons when it is not.

    Example: t0train config validate my_run.yaml optimizer.lr=1e-2
    """
    from t0train.config import config_hash, config_remarks, load_run

    resolved = load_run(config, overrides or ())
    print(f"{config} is valid (content hash {config_hash(resolved)}).")
    for remark in config_remarks(resolved):
        print(f"remark: {remark}")


def config_model(kind: str) -> type[BaseModel]:
    """The schema of one kind of configuration file: `run`, `suite` or `mixture`."""
    if kind == "run":
        from t0train.config import RunConfig

        return RunConfig
    if kind == "suite":
        from t0train.config import SuiteConfig

        return SuiteConfig
    from t0train.mixture.definition import MixtureFile

    return MixtureFile


Of = Annotated[Kind, typer.Option("--of", help="Kind of file.")]


@app.command()
def keys(
    text: Annotated[str, typer.Argument(metavar="[FILTER]", help="Part of a key, or of its meaning.")] = "",
    of: Of = "run",
    as_json: Json = False,
) -> None:
    """List every key of a configuration with its default, its meaning, and where T0's value is written down.

    Example: t0train config keys checkpoint
    """
    from t0train.config.reference import config_keys
    from t0train.core.errors import UserError, nearest

    every = list(config_keys(config_model(of)))
    found = [key for key in every if text.lower() in f"{key.name} {key.meaning}".lower()]
    if not found:
        raise UserError(f"no key of a {of} has {text!r} in its name or meaning; {nearest(text, _names(every))}")
    if as_json:
        print_json([key.as_dict() for key in found])
    else:
        _print_keys(found)


def _names(keys: Sequence[Key]) -> list[str]:
    return sorted({part for key in keys for part in (key.name, *key.name.split("."))})


def _print_keys(found: Sequence[Key]) -> None:
    table = ConsoleTable(["key", "default", "meaning"])
    for key in found:
        default = "(required)" if key.required else _shown(key.default)
        source = f". Source of T0's value: {key.source}" if key.source else ""
        table.add(key.name, default, f"{key.meaning}. Takes: {key.takes}{source}")
    table.show()


@app.command()
def schema(kind: Annotated[Kind, typer.Argument(help="Kind of file.")] = "run") -> None:
    """Print the JSON schema by which an editor completes, explains and checks a configuration file.

    Editors with the YAML language server take it from the first line of a file, as the shipped ones have it:
    `# yaml-language-server: $schema=PATH`.

    Example: t0train config schema suite
    """
    from t0train.config.reference import json_schema

    print(json.dumps(json_schema(config_model(kind), f"t0train {kind}"), indent=1, ensure_ascii=False))


@app.command()
def copy(
    name: Annotated[str, typer.Argument(help="Name of a configuration that comes with t0train.")],
    file: Annotated[Path, typer.Argument(help="New YAML file.")],
    of: Of = "run",
) -> None:
    """Copy a configuration that comes with t0train into a file of yours, to change it there.

    Example: t0train config copy real_small my_run.yaml
    """
    from t0train.config.load import copy_shipped

    copy_shipped(FOLDERS[of], name, file)
    print(f"Copied {name} to {file}. In it,")
    print(f"- a relative path is relative to {file.parent.absolute()}, the folder of the file;")
    print("- $PWD is the directory in which a command is run;")
    print("- a bare name (defaults, suite, mixture.name, base) still is one that comes with t0train.")
    if of == "run":
        _say_where_it_would_write(name, file)


def _say_where_it_would_write(name: str, file: Path) -> None:
    from t0train.config import load_config
    from t0train.config.resolve import run_folder

    folder = run_folder(load_config(file)).path
    if folder.absolute() == run_folder(load_config(name)).path.absolute():
        print(f"It still names the run folder of {name}, {folder}: change `name` (and `output`, where it is set).")
