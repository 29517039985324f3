"""`t0train config`: show a resolved configuration, compare two, check one."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from t0train.cli.tables import add_row, show_table
from t0train.config import config_hash, config_remarks, deviations, dump_config, load_run
from t0train.config.deviations import flatten

app = typer.Typer(help="Show, compare and check run configurations.", no_args_is_help=True)

Config = Annotated[str, typer.Argument(help="A YAML file, a name in configs/runs/, or a run folder.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Keys to change.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def show(config: Config, overrides: Overrides = None, as_json: Json = False) -> None:
    """Print every key of a configuration with its resolved value, its content hash and how it differs from T0.

    Example: t0train config show toy train.steps=100
    """
    resolved = load_run(config, overrides or ())
    found = deviations(resolved)
    if as_json:
        document = {
            "config": resolved.model_dump(mode="json"),
            "hash": config_hash(resolved),
            "deviations": [deviation.as_dict() for deviation in found],
            "remarks": config_remarks(resolved),
        }
        print(json.dumps(document, indent=2, ensure_ascii=False))
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
def diff(first: Config, second: Config, as_json: Json = False) -> None:
    """List the keys in which two configurations differ.

    Example: t0train config diff t0 t0_3b
    """
    left, right = (
        {key: value for key, value, _, _ in flatten(load_run(name))} for name in (first, second)
    )  # both hold every key of the schema
    differing = {key: (left[key], right[key]) for key in left if left[key] != right[key]}
    if as_json:
        rows = [{"key": key, "first": values[0], "second": values[1]} for key, values in differing.items()]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif differing:
        _print_differences(first, second, differing)
    else:
        print(f"{first} and {second} are the same configuration.")


def _print_differences(first: str, second: str, differing: dict[str, tuple[Any, Any]]) -> None:
    from rich.table import Table

    table = Table("key", first, second)
    for key, values in differing.items():
        add_row(table, key, *(_shown(value) for value in values))
    show_table(table)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


@app.command()
def validate(config: Config, overrides: Overrides = None) -> None:
    """Check a configuration: exit code 0 when it is valid, 2 with the reasons when it is not.

    Example: t0train config validate my_run.yaml optimizer.lr=1e-2
    """
    resolved = load_run(config, overrides or ())
    print(f"{config} is valid (content hash {config_hash(resolved)}).")
    for remark in config_remarks(resolved):
        print(f"remark: {remark}")
