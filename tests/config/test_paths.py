"""Paths in configurations: one type, resolved once, the same for every command and working directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from t0train.config import RunConfig, SuiteConfig, dump_config, load_config, load_yaml, locate
from t0train.config.load import configs_folder
from t0train.config.values import branches, dotted_keys, path_keys
from t0train.core.errors import UserError
from t0train.evals import EvalConfig, ModelReference
from t0train.mixture.definition import MixtureFile

SUITE: dict[str, Any] = {"name": "demo", "probes": [{"name": "one", "input": "Say yes."}]}
KINDS: dict[str, tuple[type[BaseModel], dict[str, Any]]] = {
    "runs": (RunConfig, {}),
    "evals": (SuiteConfig, SUITE),
    "mixtures": (MixtureFile, {}),
}
PATH_KEYS = [(kind, key) for kind, (model, _) in KINDS.items() for key in path_keys(model)]
NO_PATHS = {
    *("name", "mixture.include", "mixture.exclude", "mixture.rate", "model.size"),  # of a run
    *("include", "exclude", "rate", "description"),  # of a mixture file
}


def field_of(model: type[BaseModel], key: str) -> Any:
    *sections, leaf = key.split(".")
    for section in sections:
        inner = model.model_fields[section].annotation
        assert isinstance(inner, type)
        model = inner
    return model.model_fields[leaf].annotation


def read(kind: str, key: str, text: str, folder: Path) -> str:
    """The value of a key that a file in `folder` gives as `text`."""
    model, rest = KINDS[kind]
    is_list = list in [getattr(branch, "__origin__", None) for branch in branches(field_of(model, key))]
    values: Any = [text] if is_list else text
    for part in reversed(key.split(".")):
        values = {part: values}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "file.yaml").write_text(yaml.safe_dump({**rest, **values}), encoding="utf-8")
    found: Any = load_yaml(model, kind, folder / "file.yaml")
    again = folder / "again.yaml"
    again.write_text(dump_config(found), encoding="utf-8")
    assert load_yaml(model, kind, again) == found
    for part in key.split("."):
        found = getattr(found, part)
    assert isinstance(found, list) == is_list
    value: str = found[0] if is_list else found
    return value


def test_paths_are_found() -> None:
    assert ("runs", "data.templates") in PATH_KEYS
    assert ("evals", "catalogue") in PATH_KEYS
    assert ("mixtures", "base") in PATH_KEYS


@pytest.mark.parametrize("kind", ["runs", "mixtures", "evals"])
def test_every_key_that_takes_any_text_is_a_path_or_known_to_be_none(kind: str) -> None:
    """A new key that holds a path cannot be forgotten."""
    model = KINDS[kind][0]
    texts = {key for key in dotted_keys(model) if field_of(model, key) in (str, list[str])}
    assert texts - set(path_keys(model)) - NO_PATHS == set()


@pytest.mark.parametrize(("kind", "key"), PATH_KEYS, ids=[f"{kind}-{key}" for kind, key in PATH_KEYS])
def test_every_path_is_absolute_once_it_is_loaded(
    kind: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, folder in (("HOME", "home"), ("PLACE", "place")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    expected = {
        "~/a/b/c": "home/a/b/c",
        "$PLACE/a/b": "place/a/b",
        "a/$PLACE_$": None,
        "./a": "files/a",
        "a/b/c.yaml": "files/a/b/c.yaml",
        "../run$1/a/b": "run$1/a/b",
        "$PWD/a/b": "elsewhere/a/b",
        "a b/c #3/d.yaml": "files/a b/c #3/d.yaml",
        "./${x": None,
        "./a\\$b": "files/a$b",
        "/etc/x": "/etc/x",
    }
    for text, place in expected.items():
        if place is None:
            with pytest.raises(UserError, match=r"PLACE_ is not set|not understood"):
                read(kind, key, text, tmp_path / "files")
        else:
            assert read(kind, key, text, tmp_path / "files") == str(tmp_path / place), text


@pytest.mark.parametrize(("kind", "key"), PATH_KEYS, ids=[f"{kind}-{key}" for kind, key in PATH_KEYS])
@pytest.mark.parametrize("text", ["a/b\nc/d", "./" + 300 * "x", "~nobody-of-that-name/x", "./a\x00b", 2000 * "ab/"])
def test_paths_that_cannot_be(kind: str, key: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"control characters|at most|no user|special characters"):
        read(kind, key, text, tmp_path)


def test_paths_on_the_command_line_are_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "run.yaml").write_text("data: {source: rows}", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config = load_config(tmp_path / "run.yaml", ["data.catalogue=own.csv", "data.templates=[~/t, t]"])
    assert config.data.source == str(tmp_path / "rows")
    assert config.data.catalogue == str(tmp_path / "work" / "own.csv")
    assert config.data.templates == [str(tmp_path / "home" / "t"), str(tmp_path / "work" / "t")]
    with pytest.raises(UserError, match=r"data\.source: found ~\. That is null"):
        load_config(tmp_path / "run.yaml", ["data.source=~"])


def test_an_included_file_names_paths_relative_to_itself(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "b.yaml").write_text("data: {source: rows, store: '${output}/store'}\noutput: out")
    (tmp_path / "run.yaml").write_text(
        "defaults: base/b.yaml\ndata: {catalogue: own.csv, templates: ['${data.source}/t']}"
    )
    config = load_config(tmp_path / "run.yaml")
    assert config.data.source == str(tmp_path / "base" / "rows")
    assert config.data.store == str(tmp_path / "base" / "out" / "store")
    assert config.data.catalogue == str(tmp_path / "own.csv")
    assert config.data.templates == [str(tmp_path / "base" / "rows" / "t")]


def test_a_reference_to_an_empty_path_is_not_the_root_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("data: {store: '${output}/store'}")
    with pytest.raises(UserError, match="refers to output, which is empty"):
        load_config(tmp_path / "run.yaml")


def test_words_names_and_hub_ids_are_no_paths(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("model: {init_from: google/t5-xl-lm-adapt}\nsuite: toy_heldout\nmixture: {name: t0p}")
    config = load_config(path)
    assert (config.model.init_from, config.suite, config.mixture.name) == (
        "google/t5-xl-lm-adapt",
        "toy_heldout",
        "t0p",
    )
    assert (config.data.source, config.data.vocabulary, config.data.catalogue) == ("hub", "t5", "")
    (tmp_path / "google" / "t5-xl-lm-adapt").mkdir(parents=True)  # a folder of that name beside the file
    assert load_config(path).model.init_from == str(tmp_path / "google" / "t5-xl-lm-adapt")


def test_names_of_files_expand_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "base.yaml").write_text("seed: 5")
    (tmp_path / "run.yaml").write_text("defaults: ~/base.yaml")
    assert locate("runs", "~/run.yaml") == tmp_path / "run.yaml"
    assert load_config("$HOME/run.yaml").seed == 5
    with pytest.raises(UserError, match="environment variable NOWHERE is not set"):
        load_config("$NOWHERE/run.yaml")
    for name in (300 * "x", "a\x00b", "a\nb.yaml"):
        with pytest.raises(UserError):
            load_config(name)


def test_links_with_dots_lead_where_the_system_says(tmp_path: Path) -> None:
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "inner")
    (tmp_path / "run.yaml").write_text("data: {source: link/../rows}")
    assert Path(load_config(tmp_path / "run.yaml").data.source).resolve() == (tmp_path / "real" / "rows").resolve()


def test_no_path_of_a_shipped_configuration_is_relative_to_the_package() -> None:
    for kind, (model, _) in KINDS.items():
        for file in (configs_folder() / kind).glob("*.yaml"):
            config: Any = load_yaml(model, kind, file)
            assert str(configs_folder()) not in dump_config(config), file


def test_an_evaluation_finds_what_training_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` in data.catalogue once worked in training, and failed in the evaluation after it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "catalogue.csv").write_text("name,stage\ntickets,BASE\n")
    (tmp_path / "run.yaml").write_text(
        "suite: suite.yaml\ndata: {source: ~/rows, catalogue: ~/catalogue.csv, templates: [~/templates]}"
    )
    (tmp_path / "suite.yaml").write_text("name: s\ntasks: [{dataset: tickets}]")
    run = tmp_path / "runs" / "t0"
    run.mkdir(parents=True)
    (run / "config.resolved.yaml").write_text(dump_config(load_config(tmp_path / "run.yaml")))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run.rename(tmp_path / "moved")
    config = EvalConfig.for_model(ModelReference.of(tmp_path / "moved"))
    assert "tickets" in config.catalogue
    assert (config.source, config.templates) == (str(tmp_path / "rows"), [tmp_path / "templates"])
