"""How texts of YAML files and overrides become values: YAML 1.2's rules, what a key wants, clearing, references."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from t0train.config import RunConfig, dump_config, load_config, load_suite
from t0train.config.tree import MOST_VALUES
from t0train.core.errors import UserError


def nested(key: str, value: Any) -> Any:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def value_at(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = getattr(config, part)
    return config


def load(folder: Path, text: str, *overrides: str) -> RunConfig:
    (folder / "run.yaml").write_text(text, encoding="utf-8")
    return load_config(folder / "run.yaml", overrides)


def refusal(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(UserError) as refused:
        load(folder, text, *overrides)
    return str(refused.value)


# Kept as they are written by keys that take a text. 1.1 would read them as 8, 90, 1000, true, 100000.0, 16, a date.
TEXTS = ["010", "1:30", "1_000", "yes", "no", "on", "off", "true", "1e5", "0x10", "2026-11-26", ".5", "1.0", "NaN"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_key_that_takes_texts_keeps_them(text: str, tmp_path: Path) -> None:
    for config in (load(tmp_path, f"mixture: {{exclude: [{text}]}}"), load(tmp_path, "", f"mixture.exclude=[{text}]")):
        assert config.mixture.exclude == [text]
        assert load(tmp_path, dump_config(config)) == config
    if text[0] != "." and ":" not in text:  # a name is a folder
        assert load(tmp_path, f"name: {text}").name == text
        assert load(tmp_path, "", f"name={text}").name == text
    assert load(tmp_path, f"data:\n  splits:\n    {text}: {text}").data.splits == {text: text}
    assert load(tmp_path, "", f"data.splits.{text}={text}").data.splits == {text: text}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("optimizer.lr", "1e-3", 0.001),
        ("optimizer.lr", ".5", 0.5),
        ("optimizer.lr", "5.", 5.0),
        ("optimizer.lr", "+1", 1.0),
        ("seed", "0x10", 16),
        ("seed", "0o17", 15),
        ("train.steps", "1e3", 1000),
        ("train.steps", "12", 12),
        ("train.compile", "true", True),
        ("train.compile", "FALSE", False),
        ("optimizer.max_grad_norm", "null", None),
        ("optimizer.max_grad_norm", "~", None),
        ("optimizer.max_grad_norm", "", None),
        ("suite", "null", ""),
        ("suite", "", ""),
        ("data.catalogue", "", ""),
        ("mixture.prompts", "3", 3),
        ("mixture.prompts", "all", "all"),
        ("train.deepspeed.stage", "2", 2),
        ("train.deepspeed.config", "{a: {b: 1e-3, c: off, d: true}}", {"a": {"b": 0.001, "c": "off", "d": True}}),
    ],
)
def test_numbers_and_truth_values(key: str, text: str, value: object, tmp_path: Path) -> None:
    in_file = yaml.safe_dump(nested(key, "HERE")).replace("HERE", text)
    for config in (load(tmp_path, in_file), load(tmp_path, "", f"{key}={text}")):
        assert value_at(config, key) == value
        assert type(value_at(config, key)) is type(value)
        assert load(tmp_path, dump_config(config)) == config


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("seed", "010", "found 010. Some programs read a number with a leading zero as octal"),
        ("seed", "-007", "leading zero"),
        ("seed", "1:30", "found '1:30'. Input should be a valid integer"),
        ("seed", "1_000", "found '1_000'. Input should be a valid integer"),
        ("seed", "true", "found true. Input should be a valid integer"),
        ("seed", "'10'", "found '10'. Input should be a valid integer"),
        ("seed", "null", "found null"),
        ("seed", "", "found nothing"),
        ("seed", "1.5", "found 1.5"),
        ("seed", "2026-11-26", "Input should be a valid integer"),
        ("seed", 5000 * "9", "Input should be a valid integer"),
        ("optimizer.lr", "0x", "Input should be a valid number"),
        ("optimizer.lr", "nan", "Input should be a valid number"),
        ("optimizer.lr", ".nan", "finite number"),
        ("optimizer.lr", "-.inf", "finite number"),
        ("optimizer.lr", "1e999", "finite number"),
        ("optimizer.lr", "yes", "Input should be a valid number"),
        ("train.compile", "yes", "found 'yes'. Input should be a valid boolean"),
        ("train.compile", "on", "valid boolean"),
        ("train.compile", "1", "found 1. Input should be a valid boolean"),
        ("train.deepspeed.stage", "true", "found true"),
        ("train.deepspeed.config.x", ".nan", "finite number"),
        ("mixture.prompts", "03", "leading zero"),
        ("name", "null", "found null"),
        ("name", "", "found nothing"),
        ("data.source", "~", "null in YAML"),
        ("train", "", "found nothing, but a section with keys of its own is expected. Write {}"),
    ],
)
def test_what_is_not_what_it_looks_like_is_refused(key: str, text: str, words: str, tmp_path: Path) -> None:
    assert words in refusal(tmp_path, "", f"{key}={text}")
    if len(text) < 100:
        assert words in refusal(tmp_path, yaml.safe_dump(nested(key, "HERE")).replace("HERE", text))


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("data.source=run #3/data", "run #3/data"),
        ("data.source=a: b", "a: b"),
        ("data.source=[x] y", "[x] y"),
        ("data.source=*x", "*x"),
        ("data.source=  spaces  ", "spaces"),
        ("data.source='quoted #1'", "quoted #1"),
        ("data.source=k=v", "k=v"),
        ("data.source=été", "été"),
    ],
)
def test_no_override_is_cut(override: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(tmp_path, "", override).data.source == str(tmp_path / value)


def test_names_of_maps_may_hold_dots_and_brackets(tmp_path: Path) -> None:
    config = load(tmp_path, "", "mixture.scale.trec_[A-Z]*=2", "data.splits.my.data=test", "mixture.scale.a.b=0.5")
    assert config.mixture.scale == {"trec_[A-Z]*": 2.0, "a.b": 0.5}
    assert config.data.splits == {"my.data": "test"}
    config = load(tmp_path, "", "train.deepspeed.config.zero_optimization.x=1", "train.deepspeed.config.y=2")
    assert config.train.deepspeed.config == {"zero_optimization": {"x": 1}, "y": 2}


BASE = """
mixture: {include: [trec, imdb], scale: {"trec_*": 0.5, imdb: 2}}
data: {splits: {ag_news: test}, templates: [a]}
optimizer: {lr: 0.5, warmup: 3}
train: {batch: {micro_batch_rows: 2}, deepspeed: {config: {a: {b: 1, c: 2}}}}
"""


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        ("mixture: {scale: {}}", "mixture.scale", {}),
        ("mixture: {scale: null}", "mixture.scale", {}),
        ("mixture: {scale: {imdb: 3}}", "mixture.scale", {"trec_*": 0.5, "imdb": 3}),
        ("mixture: {scale: {imdb: null}}", "mixture.scale", {"trec_*": 0.5}),
        ("mixture: {include: []}", "mixture.include", []),
        ("mixture: {include: null}", "mixture.include", []),
        ("mixture: {include: [cola]}", "mixture.include", ["cola"]),
        ("mixture: {cap: 5}", "mixture.include", ["trec", "imdb"]),
        ("mixture: {}", "mixture.include", []),
        ("data: {templates: []}", "data.templates", []),
        ("optimizer: {}", "optimizer.warmup", 0),
        ("optimizer: {lr: 0.1}", "optimizer.warmup", 3),
        ("train: {}", "train.batch.micro_batch_rows", 16),
        ("train: {batch: {}}", "train.batch.micro_batch_rows", 16),
        ("train: {steps: 5}", "train.batch.micro_batch_rows", 2),
        ("train: {deepspeed: {config: {a: {}}}}", "train.deepspeed.config", {"a": {}}),
        ("train: {deepspeed: {config: {a: {b: null}}}}", "train.deepspeed.config", {"a": {"c": 2}}),
        ("train: {deepspeed: {config: {a: null}}}", "train.deepspeed.config", {}),
        ("# nothing at all", "mixture.include", ["trec", "imdb"]),
    ],
)
def test_what_is_inherited_can_be_cleared_and_replaced(change: str, key: str, value: object, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    assert value_at(load(tmp_path, f"defaults: base.yaml\n{change}"), key) == value
    (tmp_path / "between.yaml").write_text(f"defaults: base.yaml\n{change}")  # at any distance
    assert value_at(load(tmp_path, "defaults: between.yaml\nseed: 1"), key) == value


@pytest.mark.parametrize(
    ("overrides", "value"),
    [
        (["mixture.scale={}"], {}),
        (["mixture.scale=null"], {}),
        (["mixture.scale="], {}),
        (["mixture={}"], {}),
        (["mixture.scale={}", "mixture.scale.cola=3"], {"cola": 3}),
        (["mixture.scale={}", "mixture.scale={cola: 3}"], {"cola": 3}),
        (["mixture.scale.imdb=null"], {"trec_*": 0.5}),
        (["mixture.scale.trec_*=3"], {"trec_*": 3, "imdb": 2}),
    ],
)
def test_overrides_clear_and_replace_too(overrides: list[str], value: object, tmp_path: Path) -> None:
    assert load(tmp_path, BASE, *overrides).mixture.scale == value


def test_an_entry_without_a_value_is_refused(tmp_path: Path) -> None:
    assert "mixture.scale.trec:2: found nothing" in refusal(tmp_path, "", "mixture.scale={trec:2}")  # no blank


def test_the_first_ablation_of_real_small() -> None:
    assert load_config("real_small").mixture.scale != {}
    assert load_config("real_small", ["mixture.scale={}"]).mixture.scale == {}


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:HOME}",
        "${oc.env:HOME,x}",
        "a ${oc.env:HOME} b",
        "${oc.decode:1}",
        "${oc.create:{a: 1}}",
        "${oc.dict.keys:data}",
        "${env:HOME}",
        "${oc.env:${name}}",
        "${name:}",
        "${${name}}",
        "${}",
        "${.name}",
        "${name",
        "${ name }",
        "${data[source]}",
    ],
)
def test_references_are_names_of_keys_and_nothing_else(text: str, tmp_path: Path) -> None:
    words = "not understood"
    assert words in refusal(tmp_path, yaml.safe_dump({"mixture": {"exclude": [text]}}))
    assert words in refusal(tmp_path, "", f"suite={text}")
    assert words in refusal(tmp_path, "", f"train.deepspeed.config.a={text}")
    suite = tmp_path / "suite.yaml"
    suite.write_text(yaml.safe_dump({"name": "s", "probes": [{"name": "p", "input": text}]}))
    with pytest.raises(UserError, match=words):
        load_suite(str(suite))


def test_references(tmp_path: Path) -> None:
    text = "seed: 3\noptimizer: {warmup: '${seed}'}\ntrain: {steps: '${optimizer.warmup}'}\n"
    text += "mixture: {exclude: ['${HERE}']}"
    config = load(tmp_path, text.replace("HERE", "name"))
    assert (config.optimizer.warmup, config.train.steps, config.mixture.exclude) == (3, 3, ["t0"])  # name's default
    for name, words in (
        ("mixture", "no single value"),
        ("mixture.exclude", "no single value"),
        ("HOME", "no key with a value; in paths, $HOME is the environment variable"),
        ("sead", "did you mean 'seed'"),
    ):
        assert words in refusal(tmp_path, text.replace("HERE", name))
    circle = "mixture: {exclude: ['${name}']}\nname: '${suite}'\nsuite: 'x${name}'"
    assert "in a circle" in refusal(tmp_path, circle)


def test_a_dollar_and_a_brace_can_be_written(tmp_path: Path) -> None:
    config = load(tmp_path, r"mixture: {exclude: ['\${oc.env:HOME}', 'a\\${name}', '$5', 'a\b']}")
    assert config.mixture.exclude == ["${oc.env:HOME}", "a\\${name}", "$5", "a\\b"]
    assert load(tmp_path, dump_config(config)) == config


LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(10 * ['*' + before])}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
DOUBLED = [f"    k{n}: '${{data.splits.k{n - 1}}}${{data.splits.k{n - 1}}}'\n" for n in range(1, 60)]
GROWS = "data:\n  splits:\n    k0: aaaaaaaaaaaaaaaaaaaaaaaaaa\n" + "".join(DOUBLED)
STAYS = "data:\n  splits:\n" + "".join(reversed(DOUBLED)) + "    k0: ''\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS, f"more than {MOST_VALUES:,} values"),
        ("a: &a [*a]", "refers to nothing before it, or to itself"),
        ("mixture: {exclude: " + 5000 * "[" + 5000 * "]" + "}", "nested more than"),
        ("mixture: {exclude: " + 100_000 * "[", "nested more than"),
        ("mixture: {exclude: " + 5000 * "{a: ", "nested more than"),
        ("\n".join(f"{' ' * depth}a:" for depth in range(400)), "nested more than"),
        ("mixture: {exclude: [" + 100_000 * "x," + "]}", f"more than {MOST_VALUES:,} values"),
        (300_000 * "#", "bytes"),
        (GROWS, "characters with what it refers to"),
        (STAYS, "deep"),
        ("seed: 1\nseed: 2", "duplicate key seed (line 2)"),
        ("data: {splits: {a: x, 'a': y}}", "duplicate key a"),
        ("seed: 1\n---\nseed: 2", "second document"),
        ("name: !!python/object/apply:os.system ['true']", "the tag"),
        ("name: !!str 5", "the tag"),
        ("? [a]\n: 1", "a list or a mapping, but a text is expected"),
        ("seed: 1\x07", "not valid YAML"),
    ],
)
def test_what_strangers_write_costs_little(text: str, words: str, tmp_path: Path) -> None:
    start = time.perf_counter()
    assert words in refusal(tmp_path, text)
    assert time.perf_counter() - start < 5  # a second, on a busy machine


def test_aliases_and_merge_keys(tmp_path: Path) -> None:
    text = "mixture: {include: &all [trec, imdb], exclude: *all}\ndata: {splits: &s {a: x, b: y}}\n"
    assert load(tmp_path, text).mixture.exclude == ["trec", "imdb"]
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "name: s\ntasks:\n  - &first {dataset: a, limit: 3, split: test}\n  - {<<: *first, dataset: b}\n"
        "  - {dataset: c, <<: [{limit: 5}, *first]}\n"
    )
    assert [(task.dataset, task.limit, task.split) for task in load_suite(str(suite)).tasks] == [
        ("a", 3, "test"),
        ("b", 3, "test"),
        ("c", 5, "test"),
    ]
    suite.write_text("name: s\ntasks: [{<<: 5}]")
    with pytest.raises(UserError, match="inserts no mapping"):
        load_suite(str(suite))


def test_a_byte_order_mark_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_bytes("\ufeffseed: 3".encode())
    assert load_config(tmp_path / "run.yaml").seed == 3


def test_output_follows_name_and_seed(tmp_path: Path) -> None:
    base = "name: base\noutput: /out/base\n"
    (tmp_path / "base.yaml").write_text(base)
    child = "defaults: base.yaml\n"
    for text, overrides, output in (
        (base, [], "/out/base"),
        (base, ["train.steps=5"], "/out/base"),
        (base, ["seed=0"], "/out/base"),
        (base, ["seed=1"], ""),
        (base, ["name=other"], ""),
        (base, ["seed=1", "output=/out/one"], "/out/one"),
        (child, [], "/out/base"),
        (child + "name: mine", [], ""),
        (child + "name: base", [], "/out/base"),
        (child + "seed: 2", [], ""),
        (child + "name: mine\noutput: /out/mine", [], "/out/mine"),
        (child + "name: mine\noutput: /out/mine", ["seed=1"], ""),
        ("seed: 1\noutput: /out/${name}-${seed}", ["seed=4"], "/out/t0-4"),
        ("seed: 1\noutput: /out/${seed}", ["seed=4", "name=x"], ""),
    ):
        assert load(tmp_path, text, *overrides).output == output, (text, overrides)
