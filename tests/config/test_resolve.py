"""What `auto` stands for, what is refused before anything is loaded, and what is allowed but hardly meant."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from t0train.cli.main import main
from t0train.config import config_remarks, load_config
from t0train.config.resolve import (
    check_attention,
    check_recomputation,
    resolve_attention,
    resolve_replicas,
    resolve_strategy,
)
from t0train.config.schema import TrainConfig
from t0train.core.errors import UserError
from tests.conftest import ROOT


def train(**keys: Any) -> TrainConfig:
    return TrainConfig.model_validate({"batch": {"rows": 4}, **keys})


def test_strategies() -> None:
    assert resolve_strategy(train(), 1) == "single"
    assert resolve_strategy(train(), 2) == "fsdp"
    assert resolve_strategy(train(strategy="ddp"), 1) == "ddp"
    assert resolve_strategy(train(batch={"examples": 3}), 3) == "fsdp"


@pytest.mark.parametrize(
    ("processes", "keys", "complaint"),
    [
        (3, {}, r"rows is 4, but there are 3 processes, which do not divide it"),
        (8, {}, r"rows is 4, but there are more processes \(8\) than rows"),
        (4, {"batch": {"examples": 3}}, r"examples is 3, but there are 4 processes"),
        (2, {"strategy": "single"}, r"strategy is single, but there are 2 processes"),
        (0, {}, r"at least one"),
    ],
)
def test_processes_that_do_not_fit(processes: int, keys: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        resolve_strategy(train(**keys), processes)


def test_replicas_of_hsdp() -> None:
    assert resolve_replicas(train(), 8, 4) == 2
    assert resolve_replicas(train(replicas=4), 8, 4) == 4
    for replicas in (1, 3, 8):
        with pytest.raises(UserError, match=rf"hsdp with {replicas} replicas of the model over 8 processes"):
            resolve_replicas(train(replicas=replicas), 8, 4)


@pytest.mark.parametrize(
    ("name", "drops_weights", "device", "expected"),
    [
        ("auto", False, "cpu", "segment"),
        ("auto", False, "cuda", "sdpa"),
        ("auto", True, "cpu", "eager"),
        ("auto", True, "cuda", "eager"),
        ("eager", False, "cuda", "eager"),
        ("flex", False, "cuda", "flex"),
    ],
)
def test_attention(name: str, drops_weights: bool, device: str, expected: str) -> None:
    check_attention(name, drops_weights)
    assert resolve_attention(name, drops_weights, device, requires_grad=True) == expected


def test_attention_that_cannot_be() -> None:
    with pytest.raises(UserError, match="no attention backend 'sdp'; did you mean 'sdpa'"):
        check_attention("sdp", False)
    for name in ("segment", "sdpa", "flex"):
        with pytest.raises(UserError, match=f"{name} cannot drop single attention weights"):
            check_attention(name, True)
    with pytest.raises(UserError, match="segment runs on a CPU, but the model is on cuda"):
        resolve_attention("segment", False, "cuda", requires_grad=False)
    with pytest.raises(UserError, match="flex has no gradient on a CPU"):
        resolve_attention("flex", False, "cpu", requires_grad=True)
    assert resolve_attention("flex", False, "cpu", requires_grad=False) == "flex"
    with pytest.raises(UserError, match="flex is one compiled kernel"):
        check_recomputation("selective", "flex")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        # the rate of the last of 300 steps of a warm-up of 30,000 to 0.01 is 0.01 * 300 / 30000
        (
            ["optimizer.warmup=30000"],
            "optimizer.warmup is 30,000 and the run has 300 steps: the learning rate ends at 0.0001",
        ),
        (["data.max_targets=1"], "nothing is left of a target but the </s>"),
        (["data.max_inputs=1"], "nothing is left of an input but its first token"),
    ],
)
def test_a_value_that_is_hardly_meant_is_remarked_on(overrides: list[str], sentence: str) -> None:
    (remark,) = config_remarks(load_config("toy", overrides))
    assert sentence in remark


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "configs" / "runs").glob("*.yaml")))
def test_shipped_configurations_have_no_remarks(name: str) -> None:
    assert config_remarks(load_config(name, [])) == []


@pytest.mark.parametrize("command", ["show", "validate"])
def test_commands_print_remarks(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["t0train", "config", command, "toy", "data.max_targets=1"])
    with pytest.raises(SystemExit):
        main()
    assert re.search(r"remark: data\.max_targets is 1", capsys.readouterr().out)
