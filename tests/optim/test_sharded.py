"""Optimizers under FSDP and HSDP against the same optimizer in one process; four gloo processes do all the cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from t0train.config.schema import OptimizerConfig
from t0train.optim import Adafactor, build_optimizer, load_optimizer_state, optimizer_state
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

MESHES = {"fsdp2": [0, 1], "fsdp3": [0, 1, 2], "fsdp4": [0, 1, 2, 3], "hsdp2x2": [[0, 1], [2, 3]]}
CONFIGS = {"adafactor": ADAFACTOR, "hf": HF, "adamw": ADAMW}
CASES = [
    *(f"{mesh} {kind} adafactor" for mesh in MESHES for kind in ("untied", "tied")),
    *("fsdp4 untied hf", "hsdp2x2 tied hf", "fsdp3 tied adamw"),
]
HALF = STEPS // 2


def shard(model: Toy, mesh: DeviceMesh) -> Toy:
    fully_shard(model, mesh=mesh)
    return model


def train(model: Toy, optimizer: torch.optim.Optimizer, mesh: DeviceMesh, first: int = 0, last: int = STEPS) -> int:
    """Returns the number of all-reduces in the last optimizer step."""
    rank = mesh.mesh.flatten().tolist().index(dist.get_rank())
    for step in range(first, last):
        model(tokens(step, rank, mesh.size())).backward()
        with mock.patch.object(dist, "all_reduce", wraps=dist.all_reduce) as all_reduce:
            optimizer.step()
        optimizer.zero_grad()
    return all_reduce.call_count


def whole(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in values.items()}


def whole_parameters(model: Toy) -> dict[str, Tensor]:
    return whole({name: parameter.detach() for name, parameter in model.named_parameters()})


def build(model: Toy, config: OptimizerConfig) -> torch.optim.Optimizer:
    return build_optimizer(model.named_parameters(), config)


def equality(mesh: DeviceMesh, tied: bool, config: OptimizerConfig) -> Results:
    plain = Toy(tied, cube=True)
    start = copies(plain)
    reference = train_plain(plain, config)
    model = shard(Toy(tied, cube=True), mesh)
    optimizer = build(model, config)
    all_reduces = train(model, optimizer, mesh)
    results: Results = {
        "difference": difference(whole_parameters(model), copies(plain), start),
        "all_reduces": all_reduces,
    }
    if isinstance(optimizer, Adafactor) and isinstance(reference, Adafactor):
        results["total"] = [optimizer.total_update_rms, reference.total_update_rms]
        results["each"] = [optimizer.update_rms, reference.update_rms]
        results["bytes"] = local_bytes(optimizer)
    return results


def local_bytes(optimizer: Adafactor) -> int:
    """Of row and column factors and moments, in all processes of the mesh together."""
    state = [value for slots in optimizer_state(optimizer).values() for key, value in slots.items() if key != "step"]
    sizes = [value.to_local() if isinstance(value, DTensor) else value for value in state]
    total = torch.tensor(sum(value.numel() * value.element_size() for value in sizes))
    value = next(value for value in state if isinstance(value, DTensor))
    for dimension in range(value.device_mesh.ndim):
        dist.all_reduce(total, group=value.device_mesh.get_group(dimension))
    return int(total)


def portability(meshes: dict[str, DeviceMesh], folder: Path) -> Results:
    """Half of the steps on four processes, a checkpoint, the other half on three processes and on one."""
    results = {}
    for name, config in CONFIGS.items():
        plain = Toy(tied=True, cube=True)
        start = copies(plain)
        train_plain(plain, config)
        expected = copies(plain)

        model = shard(Toy(tied=True, cube=True), meshes["fsdp4"])
        optimizer = build(model, config)
        train(model, optimizer, meshes["fsdp4"], last=HALF)
        parameters = {key: parameter.detach() for key, parameter in model.named_parameters()}
        state = optimizer_state(optimizer)
        saved = {"model": parameters, "optimizer": state}
        save(saved, checkpoint_id=folder / name)
        whole_state = {key: whole(slots) for key, slots in state.items()}
        halfway = whole(parameters)

        if dist.get_rank() == 0:
            single = Toy(tied=True, cube=True)
            set_parameters(single, halfway)
            train_plain(single, config, first=HALF, state=whole_state)
            results[f"{name} on one"] = difference(copies(single), expected, start)
        if meshes["fsdp3"].get_coordinate() is not None:
            model = shard(Toy(tied=True, cube=True), meshes["fsdp3"])
            optimizer = build(model, config)
            parameters = {key: parameter.detach() for key, parameter in model.named_parameters()}
            loaded: dict[str, Any] = {"model": parameters, "optimizer": optimizer_state(optimizer)}
            load(loaded, checkpoint_id=folder / name, process_group=meshes["fsdp3"].get_group())
            load_optimizer_state(optimizer, loaded["optimizer"])
            train(model, optimizer, meshes["fsdp3"], first=HALF)
            results[f"{name} on three"] = difference(whole_parameters(model), expected, start)

            model = shard(Toy(tied=True, cube=True), meshes["fsdp3"])
            optimizer = build(model, config)
            load_optimizer_state(optimizer, whole_state)
            reloaded = optimizer_state(optimizer)
            results[f"{name} from whole tensors"] = all(
                torch.equal(whole(reloaded[key])[slot], value)
                for key, slots in whole_state.items()
                for slot, value in slots.items()
            )
    return results


def column_shards(mesh: DeviceMesh) -> str:
    weight = torch.nn.Parameter(distribute_tensor(torch.ones(32, 32), mesh, [Shard(1)]))
    weight.grad = distribute_tensor(torch.ones(32, 32), mesh, [Shard(1)])
    return refusal(Adafactor([("wide.weight", weight)]).step)


def worker(folder: Path) -> Results:
    names = {1: ("shard",), 2: ("copy", "shard")}
    layouts = {name: torch.tensor(members) for name, members in MESHES.items()}
    meshes = {name: DeviceMesh("cpu", ranks, mesh_dim_names=names[ranks.ndim]) for name, ranks in layouts.items()}
    results: Results = {}
    for case in CASES:
        mesh, kind, config = case.split()
        if meshes[mesh].get_coordinate() is not None:
            results[case] = equality(meshes[mesh], kind == "tied", CONFIGS[config])
    results |= portability(meshes, folder)
    results["columns"] = column_shards(meshes["fsdp4"])
    return results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run_processes(worker, 4, tmp_path_factory.mktemp("sharded"))


@pytest.mark.parametrize("case", CASES)
def test_equals_one_process(results: Results, case: str) -> None:
    assert results[case]["difference"] < 1e-4


@pytest.mark.parametrize("case", [case for case in CASES if "adamw" not in case])
def test_two_all_reduces_a_step_and_update_rms_of_whole_parameters(results: Results, case: str) -> None:
    assert results[case]["all_reduces"] == 2
    found, expected = results[case]["total"]
    assert found == pytest.approx(expected, rel=1e-4)
    found, expected = results[case]["each"]
    assert found == pytest.approx(expected, rel=1e-3)


def test_state_is_the_factors_alone(results: Results) -> None:
    dense = 33 + 20 + 3 * 20 + 2
    spread, copied = (
        37 + 33 + 20 + 5 * (17 + 18),
        20 + 20 + 33,
    )  # rows stay with the shards, columns are on every process
    assert results["fsdp3 tied adafactor"]["bytes"] == 4 * (dense + spread + 3 * copied)
    assert results["hsdp2x2 tied adafactor"]["bytes"] == 4 * (2 * (dense + spread) + 4 * copied)


@pytest.mark.parametrize("where", ["on one", "on three"])
@pytest.mark.parametrize("config", CONFIGS)
def test_state_of_four_processes_continues(results: Results, config: str, where: str) -> None:
    assert results[f"{config} {where}"] < 1e-4


@pytest.mark.parametrize("config", CONFIGS)
def test_state_is_loaded_from_whole_tensors(results: Results, config: str) -> None:
    assert results[f"{config} from whole tensors"] is True


def test_shards_of_columns_are_refused(results: Results) -> None:
    assert "cannot update wide.weight" in results["columns"]
    assert "sharded along their first axis" in results["columns"]
