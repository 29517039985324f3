"""A small collection of a user's own: a catalogue, templates in promptsource's format, and rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from t0train.config.schema import DataConfig, MixtureConfig
from t0train.mixture import Mixture, build_mixture

TEMPLATE = """  {uid}: !Template
    answer_choices: null
    id: {uid}
    jinja: '{jinja}'
    metadata: !TemplateMetadata
      choices_in_prompt: null
      metrics: []
      original_task: {original}
    name: {name}
    reference: ''
"""
CATALOGUE = """name,subset,family,held_out,train_size
pets,,topic,,1000
cars,old,topic,,400000
cars,new,topic,,600000
tales,,story,,300
exam,,story,BASE,50
"""
TEMPLATES = {  # (name, original task)
    "pets": [("b ask", True), ("a ask", True), ("c free", False)],
    "cars/old": [("one", True), ("two", False)],
    "cars/new": [("one", False), ("two", False), ("three", False), ("four", False)],
    "tales": [("tell", True)],
    "exam": [("tell", True)],
}


@dataclass
class Collection:
    """Where a user's own datasets lie."""

    folder: Path

    def data(self, **keys: Any) -> DataConfig:
        """The data section that uses it."""
        own = {
            "catalogue": str(self.folder / "catalogue.csv"),
            "templates": [str(self.folder / "templates")],
            "source": str(self.folder / "rows"),
        }
        return DataConfig(**{**own, **keys})

    def mixture(self, name: str = "catalogue", data: DataConfig | None = None, **keys: Any) -> Mixture:
        """A mixture of its datasets."""
        return build_mixture(MixtureConfig(name=name, **keys), data or self.data())

    def put_rows(self, **counts: int) -> None:
        """Write training rows; `cars_old=3` is the subset old of cars."""
        for key, count in counts.items():
            name, _, subset = key.partition("_")
            path = self.folder / "rows" / name / (subset or "default") / "train.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps({"text": f"row {i}", "label": i % 2}) + "\n" for i in range(count)))

    def put_mixture(self, text: str, name: str = "mine") -> str:
        """Write a mixture file; returns its path."""
        path = self.folder / f"{name}.yaml"
        path.write_text(text)
        return str(path)


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    (tmp_path / "catalogue.csv").write_text(CATALOGUE)
    (tmp_path / "rows").mkdir()
    for key, templates in TEMPLATES.items():
        folder = tmp_path / "templates" / key
        folder.mkdir(parents=True)
        head = f"dataset: {key.split('/')[0]}\n" + (f"subset: {key.split('/')[1]}\n" if "/" in key else "")
        body = "".join(
            TEMPLATE.format(
                uid=f"00000000-0000-0000-0000-00000000000{number}",
                name=name,
                original=str(original).lower(),
                jinja=f"{name}: {{{{ text }}}} ||| {{{{ label }}}}",
            )
            for number, (name, original) in enumerate(templates)
        )
        (folder / "templates.yaml").write_text(f"{head}templates:\n{body}")
    return Collection(tmp_path)
