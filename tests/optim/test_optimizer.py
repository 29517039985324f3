"""Schedules against values worked out by hand and against transformers' linear schedule."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from t0train.config.schema import OptimizerConfig
from t0train.optim import build_optimizer, learning_rate


def rates(steps: int = 10, **keys: Any) -> list[float]:
    config = OptimizerConfig(**keys)
    return [learning_rate(config, step, steps) for step in range(steps)]


def test_constant_is_the_default() -> None:
    assert rates() == [1e-3] * 10


def test_warmup_rises_to_the_rate_and_the_first_step_moves() -> None:
    assert rates(6, lr=1.0, warmup=4) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_linear_falls_to_the_final_fraction() -> None:
    assert rates(4, lr=1.0, schedule="linear", final_fraction=0.2) == pytest.approx([1.0, 0.8, 0.6, 0.4])
    assert rates(6, lr=1.0, schedule="linear", warmup=2) == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.5, 0.25])
    config = OptimizerConfig(lr=1.0, schedule="linear", final_fraction=0.05)
    assert learning_rate(config, 10, 10) == pytest.approx(0.05)
    assert learning_rate(config, 99, 10) == pytest.approx(0.05)


def test_linear_without_warmup_equals_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.3)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, 0, 25)
    expected = []
    for _ in range(25):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates(25, lr=0.3, schedule="linear") == pytest.approx(expected)


def test_inverse_sqrt() -> None:
    assert rates(5, lr=1.0, schedule="inverse_sqrt") == pytest.approx([1, 2**-0.5, 3**-0.5, 0.5, 5**-0.5])
    assert rates(5, lr=1.0, schedule="inverse_sqrt", warmup=2) == pytest.approx([0.5, 1, 1, (2 / 3) ** 0.5, 0.5**0.5])


def test_build_optimizer() -> None:
    model = torch.nn.ModuleDict({"linear": torch.nn.Linear(4, 5), "norm": torch.nn.RMSNorm(4)})
    model["linear"].bias.requires_grad_(False)
    adafactor = build_optimizer(model.named_parameters(), OptimizerConfig(preset="hf", clip_threshold=0.5))
    (group,) = adafactor.param_groups
    assert group["param_names"] == ["linear.weight", "norm.weight"]
    assert (group["min_dim_size_to_factor"], group["clip_threshold"], group["lr"]) == (1, 0.5, 1e-3)

    adamw = build_optimizer(
        model.named_parameters(), OptimizerConfig(name="adamw", lr=0.1, weight_decay=0.2, betas=(0.8, 0.98))
    )
    assert isinstance(adamw, torch.optim.AdamW)
    assert [(group["param_names"], group["weight_decay"]) for group in adamw.param_groups] == [
        (["linear.weight"], 0.2),
        (["norm.weight"], 0.0),
    ]
    assert adamw.param_groups[0]["betas"] == (0.8, 0.98)
