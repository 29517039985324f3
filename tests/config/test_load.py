"""From YAML and overrides to a checked configuration, and what the user is told when that fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from t0train.config import RunConfig, config_hash, dump_config, load_config, load_suite, locate
from t0train.config.load import configs_folder
from t0train.core.errors import UserError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a YAML file (in a subfolder if need be) and return its path."""

    def write_file(text: str, name: str = "run.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


def complaint(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as refused:
        load_config(path, overrides)
    return str(refused.value)


def test_an_empty_file_is_the_t0_recipe(write: Write) -> None:
    config = load_config(write(""))
    assert config == RunConfig()
    # Sanh et al. 2021 and the T0 model card
    assert (config.train.steps, config.train.batch.rows) == (12_200, 1024)
    assert (config.data.max_inputs, config.data.max_targets) == (1024, 256)
    assert (config.optimizer.name, config.optimizer.lr, config.optimizer.schedule) == ("adafactor", 1e-3, "constant")
    assert (config.model.dropout, config.train.loss.z_loss) == (0.1, 1e-4)
    assert config.mixture.name == "t0"


def test_a_file_wins_over_what_it_includes_and_overrides_win_over_all(write: Write) -> None:
    write("seed: 1\ntrain: {steps: 1, precision: fp32}\noptimizer: {lr: 0.5, warmup: 7}", "base/first.yaml")
    write("seed: 2\ntrain: {steps: 2}", "base/second.yaml")
    path = write("defaults: [base/first.yaml, base/second.yaml]\ntrain: {steps: 3}")
    config = load_config(path, ["optimizer.lr=0.25"])
    assert (config.seed, config.train.steps, config.train.precision) == (2, 3, "fp32")
    assert (config.optimizer.lr, config.optimizer.warmup) == (0.25, 7)


def test_includes_may_be_nested_and_met_twice(write: Write) -> None:
    write("seed: 5", "deep/root.yaml")
    write("defaults: root.yaml", "deep/left.yaml")
    write("defaults: [root.yaml]", "deep/right.yaml")
    assert load_config(write("defaults: [deep/left.yaml, deep/right.yaml]")).seed == 5


def test_an_include_may_be_a_name(write: Write) -> None:
    assert load_config(write("defaults: t0_3b\nname: mine")).model.init_from == "google/t5-xl-lm-adapt"


@pytest.mark.parametrize("loop", [["run.yaml"], ["other.yaml", "run.yaml"]])
def test_a_circle_of_includes_is_refused(loop: list[str], write: Write) -> None:
    for name, following in zip(["run.yaml", *loop[:-1]], loop, strict=True):
        path = write(f"defaults: [{following}]", name)
    assert "includes itself" in complaint(path.parent / "run.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("defaults: [toyy]", "names 'toyy', but there is no file"),
        ("defaults: [toyy]", "did you mean 'toy'"),
        ("defaults: 5", "file name or a list"),
        ("seed: [", "not valid YAML"),
        ("seed: 1\nseed: 2", "duplicate key seed"),
        ("- seed", "mapping of keys to values"),
        ('seed: "${nothing}"', "nothing"),
        ("seed: 1\nname: caf\udce9", "line 2: the byte 0xE9 is not UTF-8"),
    ],
)
def test_broken_files_are_named(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    message = complaint(path)
    assert words in message
    assert str(tmp_path) in message


def test_a_byte_order_mark_is_no_part_of_the_first_key(write: Write) -> None:
    assert load_config(write("\ufeffseed: 3\n")).seed == 3


def test_values_may_refer_to_other_keys(write: Write, tmp_path: Path) -> None:
    config = load_config(write('name: small\nseed: 3\noutput: "out/${name}-${seed}"'), ["seed=4"])
    assert config.output == str(tmp_path / "out" / "small-4")


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("optimizer.lr=1e-2", 0.01),
        ("optimizer.max_grad_norm=null", None),
        ("optimizer.betas=[0.9,0.98]", (0.9, 0.98)),
        ("mixture.include=[trec,'glue/*']", ["trec", "glue/*"]),
        ("data.splits={ag_news: 'test[1000:]'}", {"ag_news": "test[1000:]"}),
        ("data.splits.ag_news=test[1000:]", {"ag_news": "test[1000:]"}),
        ("train.canary=false", False),
        ("mixture.exclude=['a=b']", ["a=b"]),
    ],
)
def test_overrides_are_yaml(override: str, value: object, write: Write) -> None:
    config = load_config(write(""), [override])
    keys = {"data.splits.ag_news": "data.splits"}
    key = override.partition("=")[0]
    found: object = config
    for part in keys.get(key, key).split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    "override", ["train.steps", "=5", "train..steps=5", "mixture.include=[", "mixture.include=[trec] # five"]
)
def test_malformed_overrides_are_quoted(override: str, write: Write) -> None:
    assert repr(override) in complaint(write(""), override)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {stpes: 5}", "unknown key 'train.stpes': did you mean 'steps'?"),
        ("optimiser: {lr: 1}", "unknown key 'optimiser': did you mean 'optimizer'?"),
        ("train: {batch: {row: 2}}", "unknown key 'train.batch.row': did you mean 'rows'"),
        ("lr: 1", "unknown key 'lr': did you mean 'optimizer.lr'?"),
        ("train: {rows: 2}", "unknown key 'train.rows': did you mean 'train.batch.rows'?"),
        ("quux: 1", "known: 'data', 'leaks', 'mixture'"),
    ],
)
def test_unknown_keys_come_with_the_nearest_known_one(text: str, words: str, write: Write) -> None:
    assert words in complaint(write(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {steps: many}", "train.steps: found 'many'. Input should be a valid integer"),
        ("train: {steps: 1.5}", "train.steps: found 1.5."),
        ("train: {steps: 0}", "train.steps: found 0. Input should be greater than or equal to 1."),
        ("data: {max_targets: 0}", "data.max_targets: found 0."),
        ("optimizer: {lr: -1}", "optimizer.lr: found -1."),
        ("optimizer: {lr: .nan}", "optimizer.lr: found nan."),
        ("mixture: {include: trec}", "mixture.include: found 'trec'."),
        ("train: 5", "train: found 5, but a section"),
        ("name: a/b", "name: found 'a/b'."),
        ("train: {precision: fp16}", "T5 overflows in fp16; use bf16"),
        ("train: {precision: float16}", "T5 overflows in fp16; use bf16"),
        ("train: {batch: {rows: 4, examples: 4}}", "either rows or examples"),
        ("train: {batch: {rows: null}}", "either rows or examples"),
        ("model: {init_from: random}", "model.size goes with model.init_from: random, and only with it"),
        ("model: {size: tiny}", "model.size goes with model.init_from: random, and only with it"),
    ],
)
def test_wrong_values_are_quoted_with_what_is_expected(text: str, words: str, write: Write) -> None:
    assert words in complaint(write(text))


def test_a_value_of_several_kinds_gets_one_line(write: Write) -> None:
    first, second = complaint(write("mixture: {prompts: some}")).splitlines()
    assert first.endswith("is not a valid RunConfig:")
    assert second.strip().startswith("mixture.prompts: found 'some'. Input should be 'default', 'all'")
    assert "valid integer" in second


def test_all_mistakes_are_told_at_once(write: Write) -> None:
    message = complaint(write("sead: 1\ntrain: {steps: 0}\nmodel: {dropout: 2}"))
    assert all(key in message for key in ("'sead'", "train.steps", "model.dropout"))


def test_examples_take_the_place_of_rows(write: Write) -> None:
    batch = load_config(write("train: {batch: {examples: 64}}")).train.batch
    assert (batch.rows, batch.examples) == (None, 64)


@pytest.mark.parametrize("path", sorted((configs_folder() / "runs").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_runs_are_valid_and_survive_their_own_dump(path: Path, write: Write) -> None:
    config = load_config(path.stem)
    again = load_config(write(dump_config(config)))
    assert again == config
    assert config_hash(again) == config_hash(config)
    assert list(yaml.safe_load(dump_config(config))) == list(RunConfig.model_fields)


@pytest.mark.parametrize("path", sorted((configs_folder() / "evals").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_suites_are_valid(path: Path) -> None:
    suite = load_suite(path.stem)
    assert suite.tasks or suite.probes


def test_the_hash_changes_with_any_key(write: Write) -> None:
    path = write("")
    hashes = {config_hash(load_config(path, override)) for override in ([], ["seed=1"], ["train.checkpoint.keep=3"])}
    assert len(hashes) == 3


def test_names_are_looked_up_in_configs() -> None:
    assert locate("runs", "t0") == configs_folder() / "runs" / "t0.yaml"
    with pytest.raises(UserError, match="did you mean 't0_3b'"):
        locate("runs", "t0_3bb")


def test_suites_complain_about_items_of_lists(write: Write) -> None:
    path = write("name: demo\ntasks: [{dataset: trec}, {datset: imdb}, {dataset: imdb, prompts: some}]")
    with pytest.raises(UserError) as refused:
        load_suite(str(path))
    message = str(refused.value)
    assert "unknown key 'tasks.1.datset': did you mean 'dataset'?" in message
    assert "key 'tasks.1.dataset' is missing." in message
    assert "tasks.2.prompts: found 'some'." in message
