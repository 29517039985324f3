"""Optimizers under DeepSpeed's ZeRO against the same optimizer in one process, with two and with three processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from t0train.config.schema import OptimizerConfig
from t0train.core.errors import UserError
from t0train.distributed.zero import ZeroLayout, bind_zero, import_deepspeed
from t0train.distributed.zero.flat import rectangles
from t0train.distributed.zero.partitions import refuse_unknown
from t0train.optim import Adafactor, build_optimizer, optimizer_state
from tests.optim.processes import Results, run_processes
from tests.optim.toy import (
    ADAFACTOR,
    ADAMW,
    HF,
    STEPS,
    Toy,
    copies,
    difference,
    refusal,
    set_parameters,
    tokens,
    train_plain,
)

pytestmark = pytest.mark.distributed

pytest.importorskip("deepspeed")
HALF = STEPS // 2


@dataclass
class Case:
    """A ZeRO configuration and an optimizer."""

    stage: int
    tied: bool = False
    optimizer: OptimizerConfig = ADAFACTOR
    bf16: bool = False
    zero: Mapping[str, Any] = field(default_factory=dict)


CASES = {
    2: {
        **{
            f"zero{stage} {'tied' if tied else 'untied'}": Case(stage, tied)
            for stage in (1, 2, 3)
            for tied in (False, True)
        },
        "round robin": Case(2, zero={"round_robin_gradients": True}),
        "hf": Case(3, optimizer=HF),
        "adamw": Case(2, optimizer=ADAMW),
    },
    3: {
        **{
            f"zero{stage} {'tied' if tied else 'untied'}": Case(stage, tied)
            for stage in (1, 2, 3)
            for tied in (False, True)
        },
        "round robin with alignment": Case(1, zero={"round_robin_gradients": True, "parameter_alignment": True}),
        "sub-groups": Case(3, zero={"sub_group_size": 700}),
        "adamw": Case(3, optimizer=ADAMW, zero={"sub_group_size": 700}),
    },
}
BF16 = {  # by the class of DeepSpeed's optimizer
    "BF16_Optimizer": Case(1, bf16=True),
    "DeepSpeedZeroOptimizer": Case(2, bf16=True),
    "DeepSpeedZeroOptimizer_Stage3": Case(3, bf16=True),
}


@dataclass
class Running:
    """A model under DeepSpeed."""

    engine: Any
    optimizer: torch.optim.Optimizer
    layout: ZeroLayout

    def train(self, first: int = 0, last: int = STEPS) -> None:
        for step in range(first, last):
            loss = self.engine(tokens(step, dist.get_rank(), dist.get_world_size()))
            self.engine.backward(loss)
            self.engine.step()

    def parameters(self) -> dict[str, Tensor]:
        return {name: parameter.full_tensor() for name, parameter in self.layout.masters().items()}

    def whole_state(self) -> dict[str, dict[str, Tensor]]:
        return {
            name: {key: value.full_tensor() if isinstance(value, DTensor) else value for key, value in slots.items()}
            for name, slots in self.layout.optimizer_state(self.optimizer).items()
        }


def initialise(model: nn.Module, optimizer: torch.optim.Optimizer, case: Case) -> Any:
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_clipping": 0.0,  # absent, it would be 1.0
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": case.bf16},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": {"stage": case.stage, "stage3_param_persistence_threshold": 50, **case.zero},
    }
    engine, *_ = import_deepspeed().initialize(model=model, optimizer=optimizer, config=config)
    return engine


@contextmanager
def running(case: Case, model: nn.Module | None = None) -> Iterator[Running]:
    model = model or Toy(case.tied)
    optimizer = build_optimizer(model.named_parameters(), case.optimizer)
    engine = initialise(model, optimizer, case)
    yield Running(engine, optimizer, bind_zero(optimizer, engine))
    engine.destroy()


def equality(case: Case) -> Results:
    """All steps under ZeRO; half of them under ZeRO and half in one process; and the other way round."""
    plain = Toy(case.tied)
    start = copies(plain)
    first_half = train_plain(plain, case.optimizer, last=HALF)
    halfway = copies(plain)
    halfway_state = {
        name: {key: value.clone() for key, value in slots.items()}
        for name, slots in optimizer_state(first_half).items()
    }
    reference = train_plain(plain, case.optimizer, first=HALF, state=halfway_state)
    expected = copies(plain)
    results: Results = {}

    with running(case) as zero:
        zero.train(last=HALF)
        parameters, state = zero.parameters(), zero.whole_state()
        zero.train(first=HALF)
        results["difference"] = difference(zero.parameters(), expected, start)
        if isinstance(zero.optimizer, Adafactor) and isinstance(reference, Adafactor):
            results["total"] = [zero.optimizer.total_update_rms, reference.total_update_rms]
            results["each"] = [zero.optimizer.update_rms, reference.update_rms]
            held = torch.tensor(
                sum(v.numel() for s in zero.optimizer.slots.values() for k, v in s.items() if k != "step")
            )
            dist.all_reduce(held)
            results["held"] = int(held)
        results["steps"] = sorted({int(slots["step"]) for slots in zero.whole_state().values()})
        results["model"] = consistent(zero)
        # back to the middle, in the same engine
        zero.layout.load_masters(halfway)
        zero.layout.load_optimizer_state(zero.optimizer, halfway_state)
        results["model reloaded"] = consistent(zero)
        zero.train(first=HALF)
        results["from one process"] = difference(zero.parameters(), expected, start)

    plain = Toy(case.tied)
    set_parameters(plain, parameters)
    train_plain(plain, case.optimizer, first=HALF, state=state)
    results["to one process"] = difference(copies(plain), expected, start)
    return results


def consistent(zero: Running) -> bool:
    """The weights that the engine computes with are the masters, on every rank."""
    masters, gathered = zero.parameters(), import_deepspeed().zero.GatheredParameters
    weights = dict(zero.engine.module.named_parameters())
    with gathered(list(weights.values()), enabled=zero.engine.zero_optimization_stage() == 3):
        return all(
            torch.equal(weights[name].detach(), value.to(weights[name].dtype)) for name, value in masters.items()
        )


def replay(case: Case) -> Results:
    """bf16 gradients differ from fp32 ones; the update must be right for the gradients that came."""
    with running(case) as zero:
        start = zero.parameters()
        plain = nn.ParameterDict(
            {name.replace(".", "/"): nn.Parameter(value) for name, value in zero.parameters().items()}
        )
        named = {name.replace("/", "."): parameter for name, parameter in plain.items()}
        optimizer = build_optimizer(named.items(), case.optimizer)
        for step in range(4):
            gradients: dict[str, Tensor] = {}
            with capture(zero, gradients):
                zero.train(step, step + 1)
            for name, parameter in named.items():
                parameter.grad = gradients[name]
            optimizer.step()
        expected = {name: value.detach() for name, value in named.items()}
        return {
            "difference": difference(zero.parameters(), expected, start),
            "model": consistent(zero),
            "class": type(zero.engine.optimizer).__name__,
        }


@contextmanager
def capture(zero: Running, gradients: dict[str, Tensor]) -> Iterator[None]:
    """Collect whole gradients at the moment at which the optimizer gets them."""
    by_flat = {partition.flat: partition for partition in zero.layout.partitions}

    def before(optimizer: torch.optim.Optimizer, *_: object) -> None:
        for group in optimizer.param_groups:
            for flat in group["params"]:
                for shard in by_flat[flat].shards:
                    whole = zero.layout.spread(by_flat[flat], shard, shard.of(flat.grad.float()))
                    gradients[shard.name] = whole.full_tensor()

    handle = zero.optimizer.register_step_pre_hook(before)
    yield
    handle.remove()


class Small(nn.Module):
    """Three elements: with three processes one of them holds padding alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0, -3.0]))
        self.frozen = nn.Parameter(torch.ones(5), requires_grad=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return (self.weight * tokens[:, :3].float()).square().mean() + self.frozen.sum()


def padding(stage: int) -> Results:
    plain = Small()
    optimizer = build_optimizer(plain.named_parameters(), ADAFACTOR)
    for step in range(STEPS):
        plain(tokens(step)).backward()
        optimizer.step()
        optimizer.zero_grad()
    with running(Case(stage), Small()) as zero:
        zero.train()
        (shard,) = zero.layout.partitions[0].shards
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(dist.get_world_size())]
        dist.all_gather(lengths, torch.tensor([shard.length]))
        start = {"weight": Small().weight.detach()}
        worst = difference(zero.parameters(), {"weight": plain.weight.detach()}, start)
        return {"difference": worst, "lengths": torch.cat(lengths).tolist()}


def refusals() -> Results:
    results: Results = {}
    for stage in (1, 3):
        model = Toy()
        optimizer = build_optimizer(model.named_parameters(), ADAFACTOR)
        engine = initialise(model, optimizer, Case(stage))
        engine.backward(engine(tokens(0, dist.get_rank(), dist.get_world_size())))
        results[f"unbound {stage}"] = refusal(engine.step)
        bind_zero(optimizer, engine)
        results[f"state_dict {stage}"] = refusal(optimizer.state_dict)
        if stage == 1:
            other = build_optimizer(Toy().named_parameters(), ADAFACTOR)
            results["other optimizer"] = refusal(lambda: bind_zero(other, engine))  # noqa: B023
            with torch.no_grad():
                engine.optimizer.single_partition_of_fp32_groups[0][5] += dist.get_rank()  # right on rank 0
            results["wrong master"] = refusal(lambda: bind_zero(optimizer, engine))  # noqa: B023
        engine.destroy()
    with running(Case(2, optimizer=ADAMW)) as zero:
        state = zero.whole_state()
        state["norm.weight"]["step"] += 1
        results["steps"] = refusal(lambda: zero.layout.load_optimizer_state(zero.optimizer, state))
    for name, case in {
        "no zero": Case(0),
        "offload": Case(2, zero={"offload_optimizer": {"device": "cpu"}}),
        "cube": Case(3),
    }.items():
        model = Toy(cube=name == "cube")
        optimizer = build_optimizer(model.named_parameters(), ADAFACTOR)
        engine = initialise(model, optimizer, case)
        results[name] = refusal(lambda: bind_zero(optimizer, engine))  # noqa: B023
        engine.destroy()
    return results


def two(folder: Path) -> Results:
    results: Results = {name: equality(case) for name, case in CASES[2].items()}
    return results | {name: replay(case) for name, case in BF16.items()} | {"refusals": refusals()}


def three(folder: Path) -> Results:
    results: Results = {name: equality(case) for name, case in CASES[3].items()}
    return results | {f"padding {stage}": padding(stage) for stage in (1, 2, 3)}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Results]:
    return {
        ranks: run_processes(worker, ranks, tmp_path_factory.mktemp(f"zero{ranks}")) for ranks, worker in RUNS.items()
    }


RUNS = {2: two, 3: three}
NAMES = [(ranks, name) for ranks in CASES for name in CASES[ranks]]
each = pytest.mark.parametrize(("ranks", "name"), NAMES)


@each
def test_equals_one_process(results: dict[int, Results], ranks: int, name: str) -> None:
    result = results[ranks][name]
    assert result["difference"] < 1e-4
    assert result["steps"] == [STEPS]
    assert result["model"] is True


@each
def test_state_moves_to_one_process_and_from_it(results: dict[int, Results], ranks: int, name: str) -> None:
    result = results[ranks][name]
    assert result["to one process"] < 1e-4
    assert result["model reloaded"] is True
    assert result["from one process"] < 1e-4


@pytest.mark.parametrize(("ranks", "name"), [(ranks, name) for ranks, name in NAMES if name != "adamw"])
def test_update_rms_is_that_of_whole_parameters(results: dict[int, Results], ranks: int, name: str) -> None:
    result = results[ranks][name]
    found, expected = result["total"]
    assert found == pytest.approx(expected, rel=1e-4)
    found, expected = result["each"]
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("ranks", CASES)
def test_state_is_the_factors_alone(results: dict[int, Results], ranks: int) -> None:
    factors = (37 + 20) + (33 + 20) + (20 + 33)  # of the three matrices, whole on every process
    dense = 33 + 20 + 3 * 20 + 2
    assert results[ranks]["zero1 tied"]["held"] == ranks * factors + dense
    assert results[ranks]["zero3 untied"]["held"] == ranks * (factors + 20 + 37) + dense


@pytest.mark.parametrize("name", BF16)
def test_bf16_steps_are_right_for_the_gradients_that_came(results: dict[int, Results], name: str) -> None:
    result = results[2][name]
    assert result["class"] == name
    assert result["difference"] < 1e-4
    assert result["model"] is True


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_process_with_padding_alone(results: dict[int, Results], stage: int) -> None:
    result = results[3][f"padding {stage}"]
    assert result["difference"] < 1e-4
    assert sorted(result["lengths"]) == ([1, 1, 1] if stage == 3 else [0, 1, 2])


def test_refusals(results: dict[int, Results]) -> None:
    found = results[2]["refusals"]
    assert "call t0train.distributed.zero.bind_zero" in found["unbound 1"]
    assert "call t0train.distributed.zero.bind_zero" in found["unbound 3"]
    assert "do not use engine.save_checkpoint" in found["state_dict 1"]
    assert "do not use engine.save_checkpoint" in found["state_dict 3"]
    assert "another optimizer than this one" in found["other optimizer"]
    assert "does not hold parameters as t0train knows it: another process found a problem" in found["wrong master"]
    assert "ZeRO stage 0 with the optimizer class Adafactor" in found["no zero"]
    assert "parameters at different steps ([0, 1])" in found["steps"]
    assert "offload_optimizer" in found["offload"]
    assert "cube has the shape (5, 17, 18): under ZeRO, Adafactor factors matrices only" in found["cube"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("offload_optimizer", SimpleNamespace(device="nvme")),
        ("offload_param", SimpleNamespace(device="cpu")),
        ("zenflow", {}),
        ("elastic_checkpoint", True),
        ("zero_hpz_partition_size", 2),
        ("zero_quantized_weights", True),
        ("zero_quantized_gradients", True),
    ],
)
def test_options_outside_the_list_are_refused(option: str, value: object) -> None:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    optimizer = Adafactor([torch.nn.Parameter(torch.ones(3))])
    engine = type("DeepSpeedEngine", (), {})()
    engine.optimizer = type("DeepSpeedZeroOptimizer", (), {"optimizer": optimizer})()
    engine._config = SimpleNamespace(zero_config=DeepSpeedZeroConfig(stage=2))
    engine.has_moe_layers, engine.mpu, engine.autotp_size = False, None, lambda: 1
    refuse_unknown(optimizer, engine)
    object.__setattr__(engine._config.zero_config, option, value)
    with pytest.raises(UserError, match=f"this DeepSpeed configuration has {option}: "):
        refuse_unknown(optimizer, engine)


def test_other_versions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import deepspeed

    monkeypatch.setattr(deepspeed, "__version__", "0.20.1")
    with pytest.raises(UserError, match=r"DeepSpeed 0\.20\.1 is installed, but t0train knows how 0\.19"):
        import_deepspeed()
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(UserError, match="DeepSpeed is not installed: pip install"):
        import_deepspeed()


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_rectangles_cover_a_range_of_a_matrix(rows: int, columns: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, rows * columns))
    length = data.draw(st.integers(0, rows * columns - start))
    matrix = torch.arange(rows * columns).view(rows, columns)
    elements = matrix.flatten()[start : start + length]
    cut = list(rectangles(start, length, columns))
    assert len(cut) <= 3
    assert torch.equal(torch.cat([elements[:0], *(rectangle.of(elements).flatten() for rectangle in cut)]), elements)
    for rectangle in cut:
        area = matrix[
            rectangle.row : rectangle.row + rectangle.rows, rectangle.column : rectangle.column + rectangle.columns
        ]
        assert torch.equal(rectangle.of(elements), area)
