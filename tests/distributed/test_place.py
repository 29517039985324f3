"""Which process this is, by the environments of torchrun and srun; what is refused before training."""

from __future__ import annotations

import re
from pathlib import Path

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
        ("rack[0-3]_blade[0-41]", "rack0_blade0"),
        ("rack[02-03]_blade[7,9-11]-ib,rack9_blade1", "rack02_blade7-ib"),
        ("c[1-2]n[3]g[004-005],x[1-2]", "c1n3g004"),
    ],
)
def test_first_host(nodes: str, first: str) -> None:
    assert first_host(nodes, path="") == first


@pytest.mark.parametrize("nodes", ["bgl[000x133]", "n[1-", "[]", "n[]", "n[a-c]", " ", "n1 n2", "n[1-2]]"])
def test_lists_of_machines_that_cannot_be_read(nodes: str) -> None:
    with pytest.raises(UserError, match=r"of which the first name cannot be read; set MASTER_ADDR to it"):
        first_host(nodes, path="")


def test_slurms_own_program_is_asked_first(tmp_path: Path) -> None:
    program = tmp_path / "scontrol"
    program.write_text('#!/bin/sh\n[ "$1 $2 $3" = "show hostnames bgl[000x133]" ] && printf "bgl000\\nbgl001\\n"\n')
    program.chmod(0o755)
    assert first_host("bgl[000x133]", path=str(tmp_path)) == "bgl000"
    assert first_host("gpu[3-4]", path=str(tmp_path)) == "gpu3", "where it fails, the list is read here"


OPEN_MPI = {  # as Open MPI 4 and 5 set them
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
MPICH = {"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}  # as hydra sets them


@pytest.mark.parametrize("variables", [OPEN_MPI, MPICH])
def test_mpirun(variables: dict[str, str]) -> None:
    where = {"MASTER_ADDR": "n1", "MASTER_PORT": "77"}
    assert find_place({**variables, **where}) == Place(3, 4, 1, 2, ("n1", 77))
    with pytest.raises(UserError, match=r"mpirun has started .* several machines, .* -x MASTER_ADDR"):
        find_place(variables)
    local_size = next(name for name in variables if name.endswith(("LOCAL_SIZE", "LOCALNRANKS")))
    assert find_place({**variables, local_size: "4"}) == Place(3, 4, 1, 4, ("127.0.0.1", 29400)), "one machine"
    rank, size, *_ = variables
    assert find_place({**variables, rank: "0", size: "1"}) == Place()


def test_mpirun_and_srun_together() -> None:
    """In a batch script mpirun starts a daemon on each machine with srun; srun itself can set PMI's variables."""
    daemon = {**SRUN, "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}
    assert find_place({**daemon, **OPEN_MPI, "MASTER_ADDR": "n1"}).rank == 3
    assert find_place({**SRUN, "PMI_RANK": "3", "PMI_SIZE": "4"}) == find_place(SRUN)
    assert find_place({**OPEN_MPI, **TORCHRUN}).rank == 5, "torchrun inside mpirun"


def test_incomplete_environments() -> None:
    with pytest.raises(UserError, match=r"MASTER_ADDR is not set; start it with torchrun, srun, mpirun or .*--nproc"):
        find_place({"RANK": "0", "WORLD_SIZE": "2"})
    with pytest.raises(UserError, match="but WORLD_SIZE is not set"):
        find_place({"RANK": "1"})
    with pytest.raises(UserError, match="but RANK is not set"):
        find_place({"WORLD_SIZE": "2"})
    with pytest.raises(UserError, match="but OMPI_COMM_WORLD_LOCAL_RANK is not set"):
        find_place({key: value for key, value in OPEN_MPI.items() if "LOCAL" not in key})
    with pytest.raises(UserError, match=r"WORLD_SIZE is 'two' in the environment, but a number"):
        find_place({**TORCHRUN, "WORLD_SIZE": "two"})
    with pytest.raises(UserError, match="SLURM's list of machines is ''"):
        find_place({**SRUN, "SLURM_STEP_NODELIST": "", "SLURM_JOB_NODELIST": ""})


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({**TORCHRUN, "RANK": "8"}, "RANK is 8, but WORLD_SIZE is 8: among 8 processes ranks go from 0 to 7"),
        ({**TORCHRUN, "RANK": "-1"}, "RANK is '-1' in the environment, but a number is expected"),
        ({**TORCHRUN, "RANK": "\u00b2"}, "RANK is '\u00b2' in the environment, but a number is expected"),
        ({**TORCHRUN, "RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE is 0, but at least one process"),
        ({**TORCHRUN, "LOCAL_RANK": "4"}, "LOCAL_RANK is 4, but LOCAL_WORLD_SIZE is 4"),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "9"}, "LOCAL_WORLD_SIZE is 9, but WORLD_SIZE is 8: there cannot be more"),
        ({**TORCHRUN, "MASTER_PORT": "65536"}, "MASTER_PORT is 65536, but ports go from 1 to 65535"),
        ({**TORCHRUN, "MASTER_PORT": "0"}, "MASTER_PORT is 0, but"),
        ({**SRUN, "SLURM_PROCID": "4"}, "SLURM_PROCID is 4, but SLURM_STEP_NUM_TASKS is 4"),
        ({**SRUN, "MASTER_PORT": "99999"}, "MASTER_PORT is 99999, but"),
        ({**OPEN_MPI, "OMPI_COMM_WORLD_RANK": "4"}, "OMPI_COMM_WORLD_RANK is 4, but OMPI_COMM_WORLD_SIZE is 4"),
        ({**MPICH, "MPI_LOCALNRANKS": "8"}, "MPI_LOCALNRANKS is 8, but PMI_SIZE is 4: there cannot be more"),
    ],
)
def test_impossible_environments(environment: dict[str, str], complaint: str) -> None:
    with pytest.raises(UserError, match=re.escape(complaint)):
        find_place(environment)


def test_the_deepspeed_launchers_name_for_the_processes_of_a_machine() -> None:
    without = {key: value for key, value in TORCHRUN.items() if key != "LOCAL_WORLD_SIZE"}
    assert find_place({**without, "LOCAL_SIZE": "4"}) == find_place(TORCHRUN)
    assert find_place(without) == Place(5, 8, 1, 1, ("gpu01", 1234)), "set by hand, and nothing said about it"


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
