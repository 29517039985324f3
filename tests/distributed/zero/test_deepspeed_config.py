"""DeepSpeed's own keys: what the run decides, does not know or cannot do exactly is refused, early and in words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from t0train.config import RunConfig
from t0train.config.schema import DeepSpeedConfig, TrainConfig
from t0train.core.errors import UserError
from t0train.distributed.zero.deepspeed_config import deepspeed_config
from tests.distributed.helpers import ENVIRONMENT
from tests.training.helpers import steps_of

ZERO = "zero_optimization"


def made(own: dict[str, object], stage: int = 3, precision: str = "fp32") -> dict[str, object]:
    deepspeed = DeepSpeedConfig.model_validate({"stage": stage, "config": own})
    train = TrainConfig.model_validate({"precision": precision, "deepspeed": deepspeed})
    return deepspeed_config(RunConfig(train=train), torch.device("cpu"))


def test_own_keys_are_merged_over_the_generated_ones() -> None:
    found = made({ZERO: {"overlap_comm": False, "reduce_bucket_size": "auto"}, "steps_per_print": 5}, stage=2)
    assert found[ZERO] == {"stage": 2, "overlap_comm": False, "reduce_bucket_size": "auto"}
    assert found["steps_per_print"] == 5
    assert found["gradient_clipping"] == 0.0
    assert found["bf16"] == {"enabled": False}
    assert made({}, precision="bf16")["communication_data_type"] == "fp32"


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"train_batch_size": 8}, r"train_batch_size, which train\.batch\.rows decides"),
        ({"gradient_clipping": 1.0}, r"gradient_clipping, which optimizer\.max_grad_norm decides"),
        ({"optimizer": {"type": "Adam"}}, r"optimizer, which optimizer\.name decides"),
        ({"fp16": {"enabled": True}}, r"fp16, which train\.precision"),
        ({"amp": {"enabled": True}}, r"amp, which train\.precision decides"),
        ({"communication_data_type": "fp16"}, r"communication_data_type, which train\.precision"),
        ({"data_types": {"grad_accum_dtype": "bf16"}}, r"data_types, which train\.precision"),
        ({"activation_checkpointing": {}}, r"which train\.activation_checkpointing decides"),
        ({ZERO: {"stage": 3}}, r"zero_optimization\.stage, which train\.deepspeed\.stage decides"),
    ],
)
def test_keys_that_the_run_decides(own: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        made(own)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"foo": 3}, "sets foo, which no run may set there; known: 'comms_logger'"),
        ({"zero_optimisation": {}}, "did you mean 'zero_optimization'"),
        ({f"{ZERO}.overlap_comm": True}, "no run may set there"),
        ({"elasticity": {"enabled": True}}, "sets elasticity: a run keeps its batch"),
        ({"progressive_layer_drop": {}}, "leaves layers out"),
        ({ZERO: {"offload_optimizer": {"device": "cpu"}}}, "offload_optimizer: the optimizer's update is not known"),
        ({ZERO: {"cpu_offload": True}}, "cpu_offload: the optimizer's update is not known"),
        ({ZERO: {"zero_quantized_weights": True}}, r"zero_quantized_weights: it rounds .*\(ZeRO\+\+\)"),
        ({ZERO: {"zero_quantized_gradients": True}}, "zero_quantized_gradients: it rounds"),
        ({ZERO: {"zero_hpz_partition_size": 2}}, "zero_hpz_partition_size: t0train does not know where"),
        ({ZERO: {"compute_grad_norm": False}}, "compute_grad_norm: the run needs the norm"),
    ],
)
def test_keys_that_no_run_may_set_are_refused_without_deepspeed(
    own: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(UserError, match=message):
        made(own)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({ZERO: True}, "zero_optimization is True, but a section of keys is expected"),
        ({ZERO: {"bogus": 3}}, "zero_optimization has no key bogus; known: 'allgather_bucket_size'"),
        ({ZERO: {"overlap_com": True}}, "no key overlap_com; did you mean 'overlap_comm'"),
        ({ZERO: {"reduce_bucket_size": "many"}}, r"reduce_bucket_size: found 'many'\. Input should be a valid integer"),
        ({ZERO: {"reduce_bucket_size": -1}}, r"reduce_bucket_size: found -1\. Input should be greater than 0"),
        ({ZERO: {"leaf_module": 3}}, "refused by DeepSpeed: leaf_module configuration must be a mapping"),
        ({"comms_logger": {"enabled": "perhaps"}}, r"comms_logger\.enabled: found 'perhaps'"),
        ({"comms_logger": 7}, "comms_logger is 7, but a section"),
        ({"steps_per_print": 0}, "steps_per_print is 0, but a number of steps"),
        ({"dump_state": "yes"}, "dump_state is 'yes', but true or false"),
    ],
)
def test_values_that_deepspeed_does_not_take(own: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        made(own)


def test_without_deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(UserError, match="DeepSpeed is not installed"):
        made({})


def command(world: Path, output: Path, own: str) -> subprocess.CompletedProcess[str]:
    settings = (f"output={output}", "train.steps=1", "train.canary=false", "train.strategy=deepspeed")
    return subprocess.run(
        [*(sys.executable, "-m", "t0train", "train", str(world / "run.yaml"), *settings), own],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ("{zero_optimisation: {overlap_comm: true}}", "did you mean 'zero_optimization'"),
        ("{zero_optimization: {bogus: 3}}", "zero_optimization has no key bogus"),
        ("{zero_optimization: {zero_quantized_weights: true}}", "it rounds what processes send"),
    ],
)
def test_the_command_refuses_before_anything_is_opened(world: Path, tmp_path: Path, own: str, message: str) -> None:
    ended = command(world, tmp_path / "run", f"train.deepspeed.config={own}")
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count("error: ") == 1
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "run folder" not in ended.stderr
    assert not (tmp_path / "run").exists()


def test_the_command_takes_sensible_keys(world: Path, tmp_path: Path) -> None:
    own = "{zero_optimization: {overlap_comm: false, stage3_max_live_parameters: 1000}, wall_clock_breakdown: true}"
    ended = command(world, tmp_path / "run", f"train.deepspeed.config={own}")
    assert ended.returncode == 0, ended.stderr
    assert [event["step"] for event in steps_of(tmp_path / "run")] == [1]


def test_a_second_run_in_one_process_is_refused(world: Path, tmp_path: Path) -> None:
    """In a process of its own, as DeepSpeed leaves traces."""
    program = f"""
from t0train.config import load_config
from t0train.training import train
for name in "ab":
    keys = ["train.steps=1", "train.canary=false", "train.strategy=deepspeed", f"output={tmp_path}/{{name}}"]
    train(load_config("{world / "run.yaml"}", keys))
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert "works once in a process" in ended.stderr
    assert len(steps_of(tmp_path / "a")) == 1
    assert not (tmp_path / "b" / "events.jsonl").exists()
