"""Which process this is, by the environments of torchrun and srun; what is refused before training."""

from __future__ import annotations

import pytest
import torch

from t0train.core.errors import UserError
from t0train.distributed import Place, find_place
from t0train.distributed.device import check_cards, choose_device
from t0train.distributed.place import first_host, tasks_of_node

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "gpu01",
    "MASTER_PORT": "1234",
}
SRUN = {  # as SLURM 22.05 sets them with srun -N2 -n4
    "SLURM_PROCID": "3",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_ID": "0",
    "SLURM_JOB_ID": "71042",
    "SLURM_JOB_NODELIST": "n[1-2]",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}


def test_alone() -> None:
    assert find_place({}) == Place(0, 1, 0, 1)
    batch_script = {key: value for key, value in SRUN.items() if "STEP" not in key} | {"SLURM_PROCID": "0"}
    assert find_place(batch_script) == Place()
    assert find_place({**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}) == Place()
    shell_of_salloc = {**SRUN, "SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}
    assert find_place(shell_of_salloc) == Place(), "SLURM_NTASKS is the allocation's there"


def test_torchrun() -> None:
    assert find_place(TORCHRUN) == Place(5, 8, 1, 4, ("gpu01", 1234))
    assert find_place({**TORCHRUN, "TORCHELASTIC_USE_AGENT_STORE": "True"}).has_launcher
    assert find_place({**SRUN, **TORCHRUN}).rank == 5, "torchrun inside srun"


def test_srun() -> None:
    assert find_place(SRUN) == Place(3, 4, 1, 2, ("n1", 29400 + 42))
    assert find_place({**SRUN, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "77"}).address == ("10.0.0.1", 77)
    without = {key: value for key, value in SRUN.items() if key != "SLURM_STEP_NUM_TASKS"}
    assert find_place({**without, "SLURM_NTASKS": "6"}).size == 6


@pytest.mark.parametrize(
    ("tasks", "of_nodes"),
    [("4", [4]), ("8(x2)", [8, 8]), ("8(x2),4", [8, 8, 4]), ("1,2(x3),16", [1, 2, 2, 2, 16])],
)
def test_tasks_of_each_machine(tasks: str, of_nodes: list[int]) -> None:
    assert [tasks_of_node(tasks, node) for node in range(len(of_nodes))] == of_nodes
    with pytest.raises(UserError, match=rf"says nothing about machine {len(of_nodes)} \(SLURM_NODEID\)"):
        tasks_of_node(tasks, len(of_nodes))
    place = {**SRUN, "SLURM_STEP_TASKS_PER_NODE": tasks, "SLURM_NODEID": str(len(of_nodes) - 1)}
    assert find_place(place).local_size == of_nodes[-1]


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("gpu[07-09,12],login1", "gpu07"),
        ("gpu[7,9]", "gpu7"),
        ("rack-2-[003-004]-ib,x", "rack-2-003-ib"),
        ("a.example.org,b", "a.example.org"),
    ],
)
def test_first_host(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_incomplete_environments() -> None:
    with pytest.raises(UserError, match=r"MASTER_ADDR is not set; start it with torchrun, srun or .*--nproc"):
        find_place({"RANK": "0", "WORLD_SIZE": "2"})
    with pytest.raises(UserError, match=r"WORLD_SIZE is 'two' in the environment, but a number"):
        find_place({**TORCHRUN, "WORLD_SIZE": "two"})
    with pytest.raises(UserError, match="SLURM's list of machines is ''"):
        find_place({**SRUN, "SLURM_STEP_NODELIST": "", "SLURM_JOB_NODELIST": ""})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_devices() -> None:
    assert choose_device("auto", Place()) == torch.device("cpu")
    with pytest.raises(UserError, match="no usable GPU"):
        choose_device("cuda", Place())


def test_one_gpu_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto", Place(3, 4, 1, 2)) == torch.device("cuda", 1)
    assert choose_device("cpu", Place(3, 4, 1, 2)) == torch.device("cpu")
    with pytest.raises(UserError, match="process 6 is number 2 on its machine, which has 2 GPUs"):
        choose_device("cuda", Place(6, 8, 2, 4))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("cuda", Place(3, 4, 1, 2)) == torch.device("cuda", 0), "SLURM shows each task its own"


def test_every_process_has_a_gpu_of_its_own() -> None:
    check_cards([("a", ""), ("a", ""), ("b", "")])
    check_cards([("a", "GPU-1"), ("a", "GPU-2"), ("b", "GPU-3")])
    with pytest.raises(UserError, match=r"processes 1 and 3 would share one GPU of b \(GPU-2\)"):
        check_cards([("a", "GPU-1"), ("b", "GPU-2"), ("b", "GPU-3"), ("b", "GPU-2")])
    with pytest.raises(UserError, match=r"processes 0 and 2 one has a GPU and the other, on c, has none"):
        check_cards([("a", "GPU-1"), ("b", "GPU-2"), ("c", "")])
