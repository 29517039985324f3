"""Adafactor against optax, transformers, and a float64 transcription of Mesh TensorFlow's formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from t0train.core.errors import UserError
from t0train.model import SIZES, T5
from t0train.optim import Adafactor, optimizer_state

Arrays = dict[str, NDArray[np.float64]]
SHAPES: dict[str, tuple[int, ...]] = {
    "matrix": (160, 256),
    "tall": (300, 128),
    "vector": (192,),
    "bias table": (32, 8),
    "one side too short": (127, 400),
    "three axes": (4, 130, 140),
}
STEPS = 20
LR = 1e-3


def problem(seed: int = 0) -> tuple[Arrays, list[Arrays]]:
    """Start values and the gradients of every step; scales differ by parameter, by row and by step."""
    generator = np.random.default_rng(seed)
    start = {name: generator.normal(size=shape) * 0.3 for name, shape in SHAPES.items()}
    start["vector"] *= 1e-4  # below the smallest parameter scale
    gradients = []
    for step in range(STEPS):
        scale = 10.0 ** generator.uniform(-6, 1) * (1 + step)
        gradients.append(
            {
                name: scale * generator.normal(size=shape) * 10.0 ** generator.uniform(-2, 1, (*shape[:-1], 1))
                for name, shape in SHAPES.items()
            }
        )
    return start, gradients


def run_ours(start: Arrays, gradients: list[Arrays], dtype: torch.dtype, **options: object) -> list[Arrays]:
    parameters = {name: torch.nn.Parameter(torch.tensor(value, dtype=dtype)) for name, value in start.items()}
    optimizer = Adafactor(parameters.items(), lr=LR, **options)  # type: ignore[arg-type]
    history = []
    for step in gradients:
        for name, parameter in parameters.items():
            parameter.grad = torch.tensor(step[name], dtype=dtype)
        optimizer.step()
        history.append({name: value.detach().double().numpy().copy() for name, value in parameters.items()})
    return history


def run_optax(start: Arrays, gradients: list[Arrays], decay_offset: int = 0) -> list[Arrays]:
    import jax
    import jax.numpy as jnp
    import optax

    optimizer = optax.adafactor(
        LR,
        min_dim_size_to_factor=128,
        decay_rate=0.8,
        decay_offset=decay_offset,
        multiply_by_parameter_scale=True,
        clipping_threshold=1.0,
        momentum=None,
    )

    @jax.jit
    def move(gradients: Any, state: Any, parameters: Any) -> Any:
        updates, state = optimizer.update(gradients, state, parameters)
        return optax.apply_updates(parameters, updates), state

    parameters = {name: jnp.asarray(value, jnp.float32) for name, value in start.items()}
    state = optimizer.init(parameters)
    history = []
    for step in gradients:
        floats = {name: jnp.asarray(value, jnp.float32) for name, value in step.items()}
        parameters, state = move(floats, state, parameters)
        history.append({name: np.asarray(value, np.float64) for name, value in parameters.items()})
    return history


def run_transcription(start: Arrays, gradients: list[Arrays], offset: int = 0, minimum: int = 128) -> list[Arrays]:
    """mesh_tensorflow/optimize.py, AdafactorOptimizer, line by line in float64 (reference-semantics 5.1)."""
    weights = {name: value.copy() for name, value in start.items()}
    slots: dict[str, list[NDArray[np.float64]]] = {}
    history = []
    for s, step in enumerate(gradients):
        beta2 = 1 - (s - offset + 1) ** -0.8
        for name, w in weights.items():
            g = step[name]
            u = g**2 + 1e-30
            order = sorted(range(g.ndim), key=lambda axis, g=g: g.shape[axis])  # type: ignore[misc]
            if g.ndim > 1 and g.shape[order[-2]] >= minimum:
                largest, second = order[-1], order[-2]
                row, column = slots.get(name, [np.zeros(1), np.zeros(1)])
                row = beta2 * row + (1 - beta2) * np.mean(u, axis=largest, keepdims=True)
                column = beta2 * column + (1 - beta2) * np.mean(u, axis=second, keepdims=True)
                slots[name] = [row, column]
                x = g * (row / np.mean(row, axis=second, keepdims=True)) ** -0.5 * column**-0.5
            else:
                v = beta2 * slots.get(name, [np.zeros(1)])[0] + (1 - beta2) * u
                slots[name] = [v]
                x = g * v**-0.5
            x = x / max(1.0, np.sqrt(np.mean(x**2)) / 1.0)
            weights[name] = w - LR * max(np.sqrt(np.mean(w**2)), 1e-3) * x
        history.append({name: value.copy() for name, value in weights.items()})
    return history


def worst(found: list[Arrays], expected: list[Arrays], start: Arrays) -> float:
    """Largest difference at any step, relative to the parameter's largest movement."""
    return max(
        float(np.abs(found[step][name] - expected[step][name]).max() / np.abs(expected[-1][name] - start[name]).max())
        for step in range(STEPS)
        for name in start
    )


@pytest.mark.slow
def test_equals_optax() -> None:
    start, gradients = problem()
    assert worst(run_ours(start, gradients, torch.float32), run_optax(start, gradients), start) < 5e-5


def test_equals_the_formula_in_float64() -> None:
    start, gradients = problem(1)
    assert worst(run_ours(start, gradients, torch.float64), run_transcription(start, gradients), start) < 1e-10


@pytest.mark.parametrize("offset", [5, 1_100_000])
def test_step_offset_counts_steps_before(offset: int) -> None:
    start, gradients = problem(2)
    exact = run_transcription(start, gradients, -offset)
    assert worst(run_ours(start, gradients, torch.float64, step_offset=offset), exact, start) < 1e-10
    assert worst(run_transcription(start, gradients), exact, start) > 1e-2, "the offset must matter"
    if offset == 5:
        ours = run_ours(start, gradients, torch.float32, step_offset=offset)
        assert worst(ours, run_optax(start, gradients, decay_offset=-offset), start) < 5e-5


def test_min_dim_size_to_factor() -> None:
    start, gradients = problem(3)
    ours = run_ours(start, gradients, torch.float64, min_dim_size_to_factor=8)
    assert worst(ours, run_transcription(start, gradients, minimum=8), start) < 1e-10
    assert worst(ours, run_transcription(start, gradients), start) > 1e-2


def test_hf_preset_equals_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    start, gradients = problem(4)
    parameters = {name: torch.nn.Parameter(torch.tensor(value).float()) for name, value in start.items()}
    reference = transformers.Adafactor(
        parameters.values(),
        lr=LR,
        eps=(1e-30, 1e-3),
        clip_threshold=1.0,
        decay_rate=-0.8,
        beta1=None,
        weight_decay=0.0,
        scale_parameter=True,
        relative_step=False,
        warmup_init=False,
    )
    expected = []
    for step in gradients:
        for name, parameter in parameters.items():
            parameter.grad = torch.tensor(step[name]).float()
        reference.step()
        expected.append({name: value.detach().double().numpy().copy() for name, value in parameters.items()})
    assert worst(run_ours(start, gradients, torch.float32, preset="hf"), expected, start) < 5e-5
    t5 = run_ours(start, gradients, torch.float32)
    assert worst(t5, expected, start) > 1e-2, "bias tables are factored by one and not by the other"


@pytest.mark.parametrize("fill", [lambda g: g.zero_(), lambda g: g[:100].zero_(), lambda g: g[:, 3].zero_()])
def test_gradients_of_zero_change_nothing_and_give_no_nan(fill: Callable[[torch.Tensor], torch.Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(200, 128, generator=generator))
    before = weight.detach().clone()
    optimizer = Adafactor([weight])
    for _ in range(3):
        weight.grad = 1e5 * torch.randn(200, 128, generator=generator)
        fill(weight.grad)
        optimizer.step()
    assert torch.isfinite(weight).all()
    assert weight.grad is not None
    untouched = weight.grad == 0
    assert torch.equal(weight[untouched], before[untouched])
    assert (weight != before)[~untouched].float().mean() > 0.99 or untouched.all()


def test_state_is_the_factors_alone() -> None:
    parameters = {name: torch.nn.Parameter(torch.ones(shape)) for name, shape in SHAPES.items()}
    optimizer = Adafactor(parameters.items())
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()

    def numbers(name: str) -> int:
        state = optimizer.state[parameters[name]]
        assert all(value.dtype == torch.float32 for key, value in state.items() if key != "step")
        return sum(value.numel() for key, value in state.items() if key != "step")

    assert numbers("matrix") == 160 + 256
    assert numbers("tall") == 300 + 128
    assert numbers("vector") == 192
    assert numbers("bias table") == 32 * 8
    assert numbers("three axes") == 4 * (130 + 140)


@pytest.mark.parametrize(("size", "mebibytes"), [("xl", 8.7), ("xxl", 17.2)])
def test_factors_of_t5_are_megabytes(size: str, mebibytes: float) -> None:
    """3B and 11B parameters; worked out by hand from the shapes of the architecture."""
    with torch.device("meta"):
        model = T5(SIZES[size])
    used = {"row": 0, "column": 0, "moment": 0, "step": 0}
    for slots in optimizer_state(Adafactor(model.named_parameters())).values():
        for key, value in slots.items():
            used[key] += value.numel() * value.element_size()
    assert round((used["row"] + used["column"]) / 2**20, 1) == mebibytes
    scales_and_tables = sum(p.numel() for p in model.parameters() if p.ndim == 1 or 32 in p.shape) * 4
    assert used["moment"] == scales_and_tables < 2 * 2**20


def test_update_rms_is_that_before_clipping() -> None:
    weight = torch.nn.Parameter(torch.ones(6, dtype=torch.float64))
    optimizer = Adafactor([("scale", weight)])
    assert optimizer.update_rms == {}
    gradients = [np.arange(1.0, 7.0), 100 * np.arange(1.0, 7.0)]
    for gradient in gradients:
        weight.grad = torch.tensor(gradient)
        optimizer.step()
    beta2 = 1 - 2**-0.8
    moment = beta2 * gradients[0] ** 2 + (1 - beta2) * gradients[1] ** 2
    expected = np.sqrt(np.mean(gradients[1] ** 2 / moment))
    assert expected > 1
    assert optimizer.update_rms == {"scale": pytest.approx(expected, rel=1e-12)}


def test_total_update_rms_weighs_every_element_alike() -> None:
    parameters = [torch.nn.Parameter(torch.ones(size, dtype=torch.float64)) for size in (3, 50)]
    optimizer = Adafactor(parameters)
    generator = torch.Generator().manual_seed(0)
    moments = [torch.zeros(3), torch.zeros(50)]
    for beta2 in (0.0, 1 - 2**-0.8):
        for index, parameter in enumerate(parameters):
            parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            moments[index] = beta2 * moments[index] + (1 - beta2) * parameter.grad**2
        optimizer.step()
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    updates = [gradient / moment.sqrt() for gradient, moment in zip(gradients, moments, strict=True)]
    assert optimizer.total_update_rms == pytest.approx(float(torch.cat(updates).square().mean().sqrt()), rel=1e-12)


def test_state_survives_state_dict() -> None:
    start, gradients = problem(5)
    straight = run_ours(start, gradients, torch.float32)[-1]
    parameters = {name: torch.nn.Parameter(torch.tensor(value).float()) for name, value in start.items()}
    optimizer = Adafactor(parameters.items(), lr=LR)
    for index, step in enumerate(gradients):
        if index == 7:
            saved = optimizer.state_dict()
            optimizer = Adafactor(parameters.items(), lr=LR)
            optimizer.load_state_dict(saved)
        for name, parameter in parameters.items():
            parameter.grad = torch.tensor(step[name]).float()
        optimizer.step()
    for name, parameter in parameters.items():
        assert np.array_equal(parameter.detach().double().numpy(), straight[name])


def test_parameters_without_gradient_are_left_alone() -> None:
    used, unused = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    optimizer = Adafactor([used, unused])
    used.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(unused, torch.ones(3))
    assert unused not in optimizer.state
    assert list(optimizer.update_rms) == ["0"]


def test_bad_input() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(UserError, match=r"unknown Adafactor preset 't55'; did you mean 't5'"):
        Adafactor([weight], preset="t55")  # type: ignore[arg-type]
    half = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    half.grad = torch.ones_like(half)
    with pytest.raises(UserError, match="keep them in float32"):
        Adafactor([half]).step()
    with pytest.raises(UserError, match="step_offset is -1, but it counts the steps done before"):
        Adafactor([weight], step_offset=-1)
