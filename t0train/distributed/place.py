"""Which process of a run this one is, as torchrun, srun or `t0train train --nproc` say in the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from t0train.core.errors import UserError

LAUNCHER = "TORCHELASTIC_USE_AGENT_STORE"  # torchrun's word for: the launcher listens, not rank 0
_PORT = 29400  # where rank 0 listens under srun, plus the job's number modulo 1,000


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


def find_place(environment: Mapping[str, str] = os.environ) -> Place:
    """The place of this process.

    RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT (torchrun) go before SLURM_PROCID, SLURM_STEP_NUM_TASKS
    and SLURM_LOCALID (srun), where rank 0 listens on the first machine of the step unless MASTER_ADDR and MASTER_PORT
    say otherwise. Without either the process is alone, as it is in a batch script that does not use srun.

    Raises:
        UserError: variables that are missing or no numbers.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        address = (_text(environment, "MASTER_ADDR"), _number(environment, "MASTER_PORT"))
        local = _number(environment, "LOCAL_RANK", 0), _number(environment, "LOCAL_WORLD_SIZE", 1)
        has_launcher = environment.get(LAUNCHER) == "True"
        return Place(_number(environment, "RANK"), _number(environment, "WORLD_SIZE"), *local, address, has_launcher)
    under_srun = "SLURM_PROCID" in environment and "SLURM_STEP_ID" in environment  # a batch script has the first only
    # in the shell of salloc, which is a step of one task, the second number is that of the allocation
    name = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
    if not under_srun or _number(environment, name) == 1:
        return Place()
    nodes = environment.get("SLURM_STEP_NODELIST") or _text(environment, "SLURM_JOB_NODELIST")
    port = _number(environment, "MASTER_PORT", _PORT + _number(environment, "SLURM_JOB_ID", 0) % 1000)
    return Place(
        _number(environment, "SLURM_PROCID"),
        _number(environment, name),
        _number(environment, "SLURM_LOCALID"),
        tasks_of_node(environment.get("SLURM_STEP_TASKS_PER_NODE", "1"), _number(environment, "SLURM_NODEID", 0)),
        (environment.get("MASTER_ADDR") or first_host(nodes), port),
    )


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


def first_host(nodes: str) -> str:
    """The first name of a list of machines in SLURM's notation: `gpu[07-09,12],login1` gives `gpu07`."""
    found = re.match(r"([^\[,]+)(?:\[(\d+)[^\]]*\]([^,\[]*))?", nodes)
    if not found:
        raise UserError(f"SLURM's list of machines is {nodes!r}, which names none; set MASTER_ADDR to the first one.")
    prefix, number, suffix = found.groups()
    return prefix + (number or "") + (suffix or "")


def _text(environment: Mapping[str, str], name: str) -> str:
    if name not in environment:
        raise UserError(
            f"this process was started as one of several, but {name} is not set; start it with torchrun, srun or "
            "`t0train train CONFIG --nproc N`."
        )
    return environment[name]


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    if default is not None and name not in environment:
        return default
    text = _text(environment, name)
    if not text.isdigit():
        raise UserError(f"{name} is {text!r} in the environment, but a number is expected there.")
    return int(text)
