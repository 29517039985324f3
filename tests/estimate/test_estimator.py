"""Whole estimates of the runs that ship with t0train, and of a user's own."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from t0train.config import RunConfig, load_config
from t0train.config.architecture import SIZES
from t0train.core.errors import UserError
from t0train.estimate import DEVICES, Estimate, estimate
from t0train.estimate.hardware import HUB_SIZES
from t0train.estimate.memory import step_memory

T0_3B, T0PP = load_config("t0_3b"), load_config("t0pp")


@pytest.mark.parametrize(
    ("config", "device", "count", "mfu", "hours", "seconds_per_step"),
    [
        # 12,200 steps of 1,024 rows, computed by others: 1.42e20 and 5.44e20 FLOP
        (T0_3B, "h200", 8, 0.4, 15.6, None),
        (T0_3B, "h200", 8, 0.5, 12.5, 3.68),
        (T0_3B, "h200", 8, 0.6, 10.4, None),
        (T0_3B, "h200", 64, 0.5, 1.6, 0.46),
        (T0_3B, "a100-80", 8, 0.5, 31.6, 9.31),
        (T0_3B, "a100-40", 64, 0.4, 4.9, None),
        (T0PP, "h200", 8, 0.4, 59.8, None),
        (T0PP, "h200", 8, 0.5, 47.9, 14.1),
        (T0PP, "h200", 8, 0.6, 39.9, None),
        (T0PP, "h200", 64, 0.5, 6.0, 1.76),
        (T0PP, "a100-80", 8, 0.6, 101, None),
        (T0PP, "a100-80", 64, 0.5, 15.1, 4.5),
    ],
)
def test_time(
    config: RunConfig, device: str, count: int, mfu: float, hours: float, seconds_per_step: float | None
) -> None:
    result = estimate(config, device, count, mfu=mfu)
    assert result.hours == pytest.approx(hours, rel=0.05)
    if seconds_per_step is not None:
        assert result.seconds_per_step == pytest.approx(seconds_per_step, rel=0.05)


def test_cost_is_that_of_all_gpus() -> None:
    result = estimate(T0_3B, "h200", 8, price_per_hour=3.0)
    assert result.cost == pytest.approx(12.5 * 8 * 3, rel=0.05)
    assert estimate(T0_3B, "h200", 8).cost is None


@pytest.mark.parametrize(("name", "gib"), [("t0_3b", 10.6), ("t0pp", 41.5)])
def test_memory_of_the_reference_runs(name: str, gib: float) -> None:
    """On 8 GPUs: 2.65 and 10.4 GiB of parameters and gradients, 2.39 and 4.78 GiB of activations a row."""
    config = load_config(name)
    state, a_row = {"t0_3b": (2.65, 2.39), "t0pp": (10.4, 4.78)}[name]
    result = estimate(config, "h200", 8)
    memory = result.memory
    assert (memory.parameters + memory.gradients) / 2**30 == pytest.approx(state, rel=0.05)
    assert memory.activations / config.train.batch.micro_batch_rows / 2**30 == pytest.approx(a_row, rel=0.05)
    assert result.host_bytes_per_node / 2**30 == pytest.approx(gib, rel=0.05)  # one fp32 copy
    assert result.fits
    assert result.advice == ()


def test_a_row_that_is_computed_again_costs_a_third_more() -> None:
    plain, selective, checkpointed, eager = (
        estimate(load_config("t0pp", [f"train.activation_checkpointing={kind}", *more]), "h200", 8)
        for kind, *more in (["none"], ["selective"], ["block"], ["selective", "model.attention=eager"])
    )
    assert selective.seconds_per_step == plain.seconds_per_step
    assert eager.seconds_per_step / plain.seconds_per_step == pytest.approx(1 + 0.037 / 3, rel=1e-3)  # its scores
    assert checkpointed.memory.activations < selective.memory.activations < plain.memory.activations
    assert checkpointed.seconds_per_step / plain.seconds_per_step == pytest.approx(4 / 3, rel=0.01)
    assert checkpointed.memory.activations < plain.memory.activations / 10


def test_a_gpu_holds_no_more_rows_than_its_share() -> None:
    config = load_config("t0_3b", ["train.batch.rows=64", "train.batch.micro_batch_rows=16"])
    assert [estimate(config, "h200", count).workload.micro_batch_rows for count in (1, 4, 16, 64)] == [16, 16, 4, 1]


def test_largest_micro_batch() -> None:
    for device in DEVICES:
        result = estimate(load_config("t0_3b", ["train.batch.micro_batch_rows=1"]), device, 8)
        most = result.largest_micro_batch
        sizes = [step_memory(replace(result.workload, micro_batch_rows=rows)).total for rows in (most, most + 1)]
        assert sizes[0] <= DEVICES[device].memory_bytes < sizes[1]


def follow(advice: str, config: str, overrides: list[str], options: dict[str, object]) -> Estimate:
    """The estimate after a line of advice was followed."""
    for part in advice.split(" with "):
        words = part.split(" (")[0].split()
        if words[1:] == ["GPUs"]:
            options = {**options, "count": int(words[0])}
        else:
            overrides = [*overrides, *words]
    return estimate(load_config(config, overrides), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "overrides", "options", "kinds"),
    [
        (
            "t0_3b",
            ["train.batch.micro_batch_rows=64"],
            {"device": "h200", "count": 8},
            ["micro_batch_rows", "selective", "block"],
        ),
        ("t0", [], {"device": "a100-80", "count": 1}, ["^2 GPUs$"]),
        ("t0", ["train.strategy=ddp"], {"device": "a100-40", "count": 4}, ["fsdp"]),
        ("t0", ["train.strategy=hsdp", "train.replicas=4"], {"device": "a100-40", "count": 8}, ["fsdp"]),
        (
            "t0",
            ["train.strategy=deepspeed", "train.deepspeed.stage=1"],
            {"device": "a100-40", "count": 8},
            ["stage=3"],
        ),
        (
            "t0",
            ["train.batch.micro_batch_rows=16", "model.attention=eager", "train.strategy=ddp"],
            {"device": "l40s", "count": 4},
            ["sdpa.*micro_batch_rows.*fsdp"],
        ),
        (
            "t0_3b",
            ["train.batch.micro_batch_rows=12", "model.attention=eager"],
            {"device": "h100", "count": 8},
            ["micro_batch_rows", "sdpa", "block"],
        ),
        (
            "t0_3b",
            ["train.batch.micro_batch_rows=1", "data.max_inputs=16384", "model.dropout_style=elementwise"],
            {"device": "h100", "count": 1},
            ["block.* 4 GPUs$"],
        ),
        ("t0", ["train.batch.rows=6"], {"device": "a100-40", "count": 2}, []),
        ("t0_3b", ["data.max_inputs=65536"], {"device": "h200", "count": 1}, []),
    ],
)
def test_followed_advice_makes_it_fit(
    config: str, overrides: list[str], options: dict[str, object], kinds: list[str]
) -> None:
    result = estimate(load_config(config, overrides), **options)  # type: ignore[arg-type]
    assert not result.fits
    assert len(result.advice) == len(kinds)
    for advice, kind in zip(result.advice, kinds, strict=True):
        assert re.search(kind, advice)
        assert follow(advice, config, overrides, options).fits


def test_fp32_has_wider_activations_and_another_peak() -> None:
    narrow, wide = (estimate(load_config("t0_3b", [f"train.precision={name}"]), "h200", 8) for name in ("bf16", "fp32"))
    assert wide.memory.activations == 2 * narrow.memory.activations
    assert wide.memory.parameters == narrow.memory.parameters
    assert wide.seconds_per_step > 10 * narrow.seconds_per_step


def test_known_hub_ids_and_random_weights_need_no_network() -> None:
    for start, size in HUB_SIZES.items():
        config = load_config("t0", [f"model.init_from={start}"])
        assert estimate(config, "h200").workload.model == SIZES[size]
    toy = estimate(load_config("toy"), "h200", examples_per_row=4)
    assert toy.workload.model == replace(SIZES["tiny"], vocab_size=640)
    assert toy.rows == 16


@pytest.mark.parametrize("layout", ["hugging face", "checkpoint", "run"])
def test_folders_say_their_size(tmp_path: Path, layout: str) -> None:
    model = SIZES["small"]
    file = {
        "hugging face": tmp_path / "config.json",
        "checkpoint": tmp_path / "model.json",
        "run": tmp_path / "checkpoints" / "step-00000040" / "model.json",
    }[layout]
    file.parent.mkdir(parents=True, exist_ok=True)
    # transformers 5 forces the flag to true whatever the weights are
    values = {**model.to_hf(), "tie_word_embeddings": True} if layout == "hugging face" else model.to_json()
    if layout == "hugging face":
        del values["scale_decoder_outputs"]
    file.write_text(json.dumps(values))
    assert estimate(load_config("t0", [f"model.init_from={tmp_path}"]), "h200").parameters == 76_961_152


@pytest.mark.parametrize(
    ("overrides", "options", "complaint"),
    [
        ([], {"device": "h20"}, "did you mean 'h200'"),
        ([], {"device": "h200", "count": 0}, "at least one"),
        ([], {"device": "h200", "count": 3}, "rows is 1,024, but there are 3 processes"),
        (["train.batch.rows=4"], {"device": "h200", "count": 8}, "than rows"),
        (["train.strategy=single"], {"device": "h200", "count": 2}, "single, but there are 2"),
        (["train.strategy=hsdp"], {"device": "h200", "count": 8}, "at least 2 replicas"),
        (["train.strategy=hsdp", "train.replicas=3"], {"device": "h200", "count": 8}, "must divide"),
        (
            ["model.attention=flex", "train.activation_checkpointing=selective"],
            {"device": "h200"},
            "flex is one compiled kernel",
        ),
        ([], {"device": "h200", "mfu": 50}, "0.5 for 50 %"),
        ([], {"device": "h200", "mfu": 0}, "positive"),
        ([], {"device": "h200", "price_per_hour": -1}, "positive"),
        (["train.batch={examples: 2048, rows: null}"], {"device": "h200"}, "--examples-per-row"),
        (["model.attention=segment"], {"device": "h200"}, "segment runs on a CPU"),
        (["model.attention=flex", "model.dropout_style=elementwise"], {"device": "h200"}, "cannot drop single"),
        (["model.init_from=google/t5-xl-lm-adpat"], {"device": "h200"}, "did you mean 'google/t5-xl-lm-adapt'"),
        (
            ["model.init_from=random", "model.size=xlarge"],
            {"device": "h200"},
            "model.size: found 'xlarge'. There is no such size; did you mean 'large'",
        ),
    ],
)
def test_bad_input_is_named(overrides: list[str], options: dict[str, object], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint.replace("(", r"\(")):
        estimate(load_config("t0_3b", overrides), **options)  # type: ignore[arg-type]


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        estimate(load_config("t0", [f"model.init_from={tmp_path}"]), "h200")
