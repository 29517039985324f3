"""Writes what is generated from the schema of configurations: configs/schema/*.json and docs/configuration-keys.md.

python scripts/config_reference.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from t0train.cli.config import FOLDERS, config_model
from t0train.config.reference import Key, config_keys, json_schema
from t0train.core.text import escape_markdown

ROOT = Path(__file__).resolve().parents[1]
INTRODUCTION = """# Every configuration key

`t0train config keys [FILTER]` prints this table, or the keys that have FILTER in their name or meaning;
`--of suite` and `--of mixture` print the other two. How files are merged, and what paths and references mean, is on the
page about [configuration](configuration.md).

A key with a source matters to what is learned: its default is T0's value (Sanh et al. 2021), and any other is a
[deviation](deviations.md). The source is where that value is written down: the model card, or a file of t-zero, T5 or
Mesh TensorFlow, the repositories of the original. Keys without one change where and how a run executes.

This page is written by `python scripts/config_reference.py`.
"""
TITLES = {
    "run": "A run",
    "suite": "An evaluation suite",
    "mixture": "A mixture file",
}


def generated() -> dict[Path, str]:
    """The generated files with their contents."""
    files = {ROOT / "docs" / "configuration-keys.md": page()}
    for kind in FOLDERS:
        text = json.dumps(json_schema(config_model(kind), f"t0train {kind}"), indent=1, ensure_ascii=False)
        files[ROOT / "configs" / "schema" / f"{kind}.json"] = f"{text}\n"
    return files


def page() -> str:
    """The reference of every key, in Markdown."""
    return "\n".join([INTRODUCTION, *(line for kind in FOLDERS for line in tables(kind))])


def tables(kind: str) -> Iterator[str]:
    """Lines of the tables for one kind of file, one table for each section."""
    yield f"## {TITLES[kind]}: `configs/{FOLDERS[kind]}/`\n"
    keys = list(config_keys(config_model(kind)))
    has_sources = any(key.source for key in keys)
    for section, members in groupby(keys, key=lambda key: key.name.rpartition(".")[0]):
        if section:
            yield f"### `{section}`\n"
        yield f"| key | default | takes | meaning |{' source |' if has_sources else ''}"
        yield f"|---|---|---|---|{'---|' if has_sources else ''}"
        for key in members:
            cells = [f"`{key.name}`", default(key), *map(escape_markdown, (key.takes, key.meaning))]
            yield "| " + " | ".join([*cells, *([escape_markdown(key.source)] if has_sources else [])]) + " |"
        yield ""


def default(key: Key) -> str:
    """A default as a cell; what is empty by name."""
    if key.required:
        return "*required*"
    if key.default in (None, "", [], {}):
        return "empty"
    return f"`{key.default if isinstance(key.default, str) else json.dumps(key.default)}`"


if __name__ == "__main__":
    for path, content in generated().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
        print(path.relative_to(ROOT))
