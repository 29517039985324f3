from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from t0train.prompts import Rendered, Template, load_templates
from t0train.toy import build_toy


class Toy:
    """A built toy folder, read back from its files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def records(self, dataset: str, split: str) -> list[dict[str, Any]]:
        path = self.folder / "data" / dataset / "default" / f"{split}.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def templates(self, dataset: str) -> dict[str, Template]:
        return load_templates(dataset, folders=[self.folder / "templates"])


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    folder = tmp_path_factory.mktemp("toy") / "p3"
    build_toy(folder)
    return Toy(folder)


def rendered(template: Template, record: dict[str, Any]) -> Rendered:
    """What a template makes of a record that it must not drop."""
    example = template.render(record)
    assert example is not None
    return example


def choices_of(example: Rendered) -> tuple[str, ...]:
    assert example.choices is not None
    return tuple(example.choices)
