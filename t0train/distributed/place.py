"""Which process of a run this one is, as torchrun, srun, mpirun or `t0train train --nproc` say in the environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from t0train.core.errors import UserError

LAUNCHER = "TORCHELASTIC_USE_AGENT_STORE"  # torchrun's word for: the launcher listens, not rank 0
_PORT = 29400  # where rank 0 listens under mpirun; under srun plus the job's number modulo 1,000
_LAST_PORT = 65535
_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Place:
    """A process among the processes of a run.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        local_rank: its number on its machine: which GPU it takes.
        local_size: how many there are on its machine.
        address: host and port where rank 0, or the launcher, listens.
        has_launcher: whether a launcher listens there.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    address: tuple[str, int] = ("", 0)
    has_launcher: bool = False


@dataclass(frozen=True)
class _Mpi:
    """How an MPI launcher calls the variables that say which process this is."""

    rank: str
    size: str
    local_rank: str
    local_size: str


_MPI = (
    _Mpi(*(f"OMPI_COMM_WORLD_{what}" for what in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE"))),  # Open MPI
    _Mpi("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),  # MPICH, Intel MPI
    _Mpi(*(f"MV2_COMM_WORLD_{what}" for what in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE"))),  # MVAPICH2
)


def find_place(environment: Mapping[str, str] = os.environ) -> Place:
    """The place of this process.

    RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT (torchrun, accelerate, deepspeed) go before the variables
    of mpirun, and those before SLURM_PROCID, SLURM_STEP_NUM_TASKS and SLURM_LOCALID (srun). Under srun rank 0 listens
    on the first machine of the step, under mpirun on one machine on that machine, unless MASTER_ADDR and MASTER_PORT
    say otherwise. Without any of them the process is alone, as it is in a batch script that does not use srun.

    Raises:
        UserError: variables that are missing, no numbers, or that contradict each other.
    """
    if "RANK" in environment or "WORLD_SIZE" in environment:
        return _of_torchrun(environment)
    under_srun = "SLURM_PROCID" in environment and "SLURM_STEP_ID" in environment  # a batch script has the first only
    # in the shell of salloc, which is a step of one task, the second number is that of the allocation
    tasks = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
    for launcher in _MPI:
        if launcher.rank in environment and launcher.size in environment:
            # srun can set PMI's variables, too; and mpirun in a batch script starts its daemons with srun
            if under_srun and environment.get(tasks) == environment[launcher.size]:
                break
            return _of_mpirun(environment, launcher)
    if not under_srun or _number(environment, tasks) == 1:
        return Place()
    return _of_srun(environment, tasks)


def _of_torchrun(environment: Mapping[str, str]) -> Place:
    rank, size = _rank_among(environment, "RANK", "WORLD_SIZE")
    local_size = next((name for name in ("LOCAL_WORLD_SIZE", "LOCAL_SIZE") if name in environment), None)
    if local_size:
        local = _rank_among(environment, "LOCAL_RANK", local_size)
        _refuse_more_here_than_in_all(local_size, local[1], "WORLD_SIZE", size)
    else:
        local = _number(environment, "LOCAL_RANK", 0), 1
    address = (_text(environment, "MASTER_ADDR"), _port(environment))
    return Place(rank, size, *local, address, environment.get(LAUNCHER) == "True")


def _of_mpirun(environment: Mapping[str, str], launcher: _Mpi) -> Place:
    rank, size = _rank_among(environment, launcher.rank, launcher.size)
    if size == 1:
        return Place()
    local = _rank_among(environment, launcher.local_rank, launcher.local_size)
    _refuse_more_here_than_in_all(launcher.local_size, local[1], launcher.size, size)
    if local[1] < size and "MASTER_ADDR" not in environment:
        raise UserError(
            "mpirun has started processes on several machines, but does not say where they can meet; pass the name of "
            "the machine of rank 0 to all of them, e.g. `mpirun -x MASTER_ADDR=gpu01` (Open MPI) or "
            "`mpiexec -genv MASTER_ADDR gpu01` (MPICH, Intel MPI)."
        )
    return Place(rank, size, *local, (environment.get("MASTER_ADDR", "127.0.0.1"), _port(environment, _PORT)))


def _of_srun(environment: Mapping[str, str], tasks: str) -> Place:
    rank, size = _rank_among(environment, "SLURM_PROCID", tasks)
    nodes = environment.get("SLURM_STEP_NODELIST") or _text(environment, "SLURM_JOB_NODELIST")
    port = _port(environment, _PORT + _number(environment, "SLURM_JOB_ID", 0) % 1000)
    here = tasks_of_node(environment.get("SLURM_STEP_TASKS_PER_NODE", "1"), _number(environment, "SLURM_NODEID", 0))
    host = environment.get("MASTER_ADDR") or first_host(nodes, environment.get("PATH"))
    return Place(rank, size, _number(environment, "SLURM_LOCALID"), here, (host, port))


def tasks_of_node(tasks: str, node: int) -> int:
    """One machine's number in SLURM's notation: of `8(x2),4` machines 0 and 1 have 8, machine 2 has 4.

    Raises:
        UserError: it says nothing about that machine.
    """
    numbers: list[int] = []
    for many, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", tasks):
        numbers += [int(many)] * int(times or 1)
    if node >= len(numbers):
        raise UserError(
            f"SLURM_STEP_TASKS_PER_NODE is {tasks!r}, which says nothing about machine {node} (SLURM_NODEID); start "
            "the processes with srun."
        )
    return numbers[node]


def first_host(nodes: str, path: str | None = None) -> str:
    """The first name of a list of machines in SLURM's notation: `gpu[07-09,12],login1` gives `gpu07`.

    SLURM's own `scontrol` is used where it is installed; it knows forms that are not known here.

    Args:
        nodes: the list.
        path: folders in which `scontrol` is looked for; default: those of the environment.

    Raises:
        UserError: no machine can be read out of the list.
    """
    if (scontrol := shutil.which("scontrol", path=path)) and (host := _ask(scontrol, nodes)):
        return host
    # a name with any number of brackets, each with numbers or ranges of them: the first name has the first of each
    first = re.match(r"(?:[^\[\],\s]|\[\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*\])+(?=,|$)", nodes)
    if not first:
        raise UserError(
            f"SLURM's list of machines is {nodes!r}, of which the first name cannot be read; set MASTER_ADDR to it, "
            "e.g. MASTER_ADDR=$(scontrol show hostnames | head -n 1)."
        )
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", first[0])


def _ask(scontrol: str, nodes: str) -> str:
    """What SLURM says is the first of some machines; empty if it does not know."""
    try:
        command = [scontrol, "show", "hostnames", nodes]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)  # noqa: S603 (SLURM's own list)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.split("\n", 1)[0].strip() if answer.returncode == 0 else ""


def _rank_among(environment: Mapping[str, str], rank: str, size: str) -> tuple[int, int]:
    """The numbers of two variables, of which the first counts from 0 to below the second."""
    number, count = _number(environment, rank), _number(environment, size)
    if number >= count:
        raise UserError(
            f"{rank} is {number}, but {size} is {count}: among {count} processes ranks go from 0 to {count - 1}. "
            "Check how the processes were started."
            if count
            else f"{size} is 0, but at least one process is expected. Check how the processes were started."
        )
    return number, count


def _refuse_more_here_than_in_all(name: str, local_size: int, of_all: str, size: int) -> None:
    if local_size > size:
        raise UserError(
            f"{name} is {local_size}, but {of_all} is {size}: there cannot be more processes on one machine than in "
            "all. Check how the processes were started."
        )


def _port(environment: Mapping[str, str], default: int | None = None) -> int:
    port = _number(environment, "MASTER_PORT", default)
    if not 1 <= port <= _LAST_PORT:
        raise UserError(f"MASTER_PORT is {port}, but ports go from 1 to {_LAST_PORT}.")
    return port


def _text(environment: Mapping[str, str], name: str) -> str:
    if name not in environment:
        raise UserError(
            f"this process was started as one of several, but {name} is not set; start it with torchrun, srun, "
            "mpirun or `t0train train CONFIG --nproc N`."
        )
    return environment[name]


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    if default is not None and name not in environment:
        return default
    text = _text(environment, name)
    if not (text.isascii() and text.isdigit()):
        raise UserError(f"{name} is {text!r} in the environment, but a number is expected there.")
    return int(text)
