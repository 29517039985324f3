"""Every key of every kind of file with values at and beyond its bounds: accepted and kept, or refused in a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from t0train.config import RunConfig, SuiteConfig, dump_config, load_config, load_yaml
from t0train.config.schema import OptimizerConfig
from t0train.config.values import branches, dotted_keys, model_of
from t0train.core.errors import UserError
from t0train.mixture.definition import MixtureFile
from tests.config.test_values import nested, refusal, value_at

SUITE = """
name: demo
tasks: [{dataset: a, kind: generate, metrics: [rouge1]}, {dataset: b}]
differences: [{name: d, of: a, minus: b}]
probes: [{name: p, input: Why}]
"""
KINDS: dict[str, tuple[type[BaseModel], str]] = {
    "runs": (RunConfig, ""),
    "evals": (SuiteConfig, SUITE),
    "mixtures": (MixtureFile, "stages: [BASE]"),
}
VALUES = [
    *(
        ".nan",
        ".inf",
        "-.inf",
        "-1",
        "0",
        "1",
        "-0.5",
        "1e-320",
        "1e308",
        "1e999",
        "1000000000000",
        "9" * 64,
        "9" * 9999,
    ),
    *(
        "''",
        "null",
        "~",
        "true",
        "text",
        "'two\\nlines'",
        '"two\\nlines"',
        '"\\0"',
        "x" * 300,
        "é" * 300,
        "/",
        ".",
        "..",
        "~x",
    ),
    *("[]", "{}", "[1, 2, 3]", "{a: 1}", "[null]", "[[]]", "[{}]", "{a: null}", "{a: {b: 1}}"),
]
NUMBERS = [value for value in VALUES if value.strip("-").startswith((".", "0", "1", "9")) and value not in (".", "..")]
LARGEST = {
    **dict.fromkeys(("seed", "mixture.prompts_seed"), 2**63 - 1),
    **dict.fromkeys(("mixture.cap", "cap"), 10**12),
    "optimizer.lr": 1e38,  # adafactor's: the run ends at the first loss that is not finite, with a sentence
}


def keys(kind: str) -> Iterator[str]:
    """The leaf keys of a kind of file; of a list of sections, those of its first item."""
    model, _ = KINDS[kind]
    for key in dotted_keys(model):
        field = model.model_fields.get(key)
        inner = [part for part in getattr(field and field.annotation, "__args__", ()) if isinstance(part, type)]
        section = model_of(branches(inner[0])) if inner else None
        if section:
            yield from (f"{key}.0.{name}" for name in section.model_fields)
        yield key


def with_value(kind: str, key: str, value: str) -> str:
    """A file in which the key has that value, spelt as it is in YAML."""
    whole: Any = yaml.safe_load(KINDS[kind][1]) or {}
    place = whole
    *sections, leaf = key.split(".")
    for section in sections:
        place = place[int(section)] if isinstance(place, list) else place.setdefault(section, {})
    place[leaf] = "PLACE"
    return yaml.safe_dump(whole, allow_unicode=True).replace("PLACE", value, 1)


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    else:
        yield value


def outcome(kind: str, key: str, value: str, folder: Path) -> Any:
    """What a key becomes; None if it is refused in a sentence."""
    model, _ = KINDS[kind]
    (folder / "file.yaml").write_text(with_value(kind, key, value), encoding="utf-8")
    try:
        loaded = load_yaml(model, kind, folder / "file.yaml")
    except UserError:
        return None
    (folder / "again.yaml").write_text(dump_config(loaded), encoding="utf-8")
    assert load_yaml(model, kind, folder / "again.yaml") == loaded, (key, value)
    found: Any = loaded.model_dump(mode="json")
    for part in key.split("."):
        found = found[int(part)] if isinstance(found, list) else found[part]
    return found


def test_keys_of_lists_are_among_those_that_are_tried() -> None:
    assert {"tasks.0.limit", "differences.0.name", "probes.0.input", "name"} <= set(keys("evals"))
    assert {"train.batch.rows", "optimizer.betas", "train.deepspeed.config"} <= set(keys("runs"))


@pytest.mark.parametrize(("kind", "key"), [(kind, key) for kind in KINDS for key in keys(kind)])
def test_every_value_is_kept_or_refused_in_a_sentence(kind: str, key: str, tmp_path: Path) -> None:
    for value in VALUES:
        for spelt in (value, f"[{value}]", f"{{a: {value}}}"):
            found = outcome(kind, key, spelt, tmp_path)
            for number in leaves(found):
                assert not isinstance(number, float) or math.isfinite(number), (key, spelt)


@pytest.mark.parametrize(("kind", "key"), [(kind, key) for kind in KINDS for key in keys(kind)])
def test_every_number_has_bounds(kind: str, key: str, tmp_path: Path) -> None:
    """A number that passes must be one that nothing can choke on: neither negative nor absurdly large."""
    for value in NUMBERS:
        found = outcome(kind, key, value, tmp_path)
        if isinstance(found, int | float) and not isinstance(found, bool):
            assert 0 <= found <= LARGEST.get(key, 10**9), (key, value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optimizer: {betas: [1, 0.9]}", "optimizer.betas.0: found 1"),
        ("optimizer: {betas: [0.9, 1.0]}", "less than 1"),
        ("optimizer: {name: adamw, lr: 1.0e+38}", "adamw changes every parameter by about as much in each step"),
        ("mixture: {temperature: 1.0e-3}", "mixture.temperature: found 0.001"),
        ("mixture: {scale: {trec: 1.0e+308}}", "mixture.scale.trec"),
        ("data: {workers: 100000}", "less than or equal to 256"),
        ("train: {batch: {rows: 1000000000}}", "less than or equal to 1000000"),
        ("model: {init_from: random, size: tinny}", "did you mean 'tiny'"),
        ("name: " + 300 * "a", "100 characters at most"),
        ("name: a/b", "It names a folder"),
        ("name: .hidden", "It names a folder"),
        ("name: -x", "It names a folder"),
        ('name: "a\\n"', "It names a folder"),
        ("name: naïve", "without accent"),
        ("name: a b", "It names a folder"),
        ("name: ''", "It names a folder"),
    ],
)
def test_what_would_fail_later_is_refused_at_once(text: str, words: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, text)
    assert words in message
    assert len(message) < 600


def test_bounds_leave_room_for_every_sensible_value() -> None:
    """Values that papers and users have: the largest batch, the longest run, the smallest rate that we know of."""
    values = {
        "train.batch.rows": 65_536,
        "train.steps": 1_000_000,
        "data.max_inputs": 16_384,
        "optimizer.lr": 1e-7,
        "seed": 2**32,
        "mixture.temperature": 10,
        "train.timeout_s": 86_400,
    }
    for key, value in values.items():
        assert value_at(RunConfig.model_validate(nested(key, value)), key) == value
    assert OptimizerConfig(name="adamw", lr=1.0).lr == 1.0
    assert load_config("t0").optimizer.lr == 1e-3
