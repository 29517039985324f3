"""What each process of a run computes on."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from itertools import combinations

import torch
from torch.distributed import Store  # type: ignore[attr-defined]

from t0train.core.errors import UserError
from t0train.distributed.place import Place

Card = tuple[str, str]
"""Name of a machine and identity of a GPU in it; the latter is empty for a process that computes on the CPU."""


def choose_device(name: str, place: Place) -> torch.device:
    """The device of a process: with several GPUs on a machine, the one of its local rank.

    Raises:
        UserError: `cuda` where there is none, or fewer GPUs than processes.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device is cuda, but this machine has no usable GPU; use auto or cpu.")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    visible = torch.cuda.device_count()
    if visible == 1:  # also where SLURM shows each process its own GPU only; `check_cards` sees whether it does
        return torch.device("cuda", 0)
    if place.local_rank >= visible:
        raise UserError(
            f"process {place.rank} is number {place.local_rank} on its machine, which has {visible} GPUs; start one "
            "process per GPU."
        )
    return torch.device("cuda", place.local_rank)


def agree_on_devices(place: Place, device: torch.device, store: Store) -> None:
    """Refuse, in all processes alike, devices with which the processes cannot work together.

    Raises:
        UserError: see `check_cards`.
    """
    identity = str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""
    store.set(f"card/{place.rank}", json.dumps((socket.gethostname(), identity)))
    check_cards([json.loads(card) for card in store.multi_get([f"card/{rank}" for rank in range(place.size)])])


def check_cards(cards: Sequence[Card]) -> None:
    """Refuse two processes on one GPU, and GPUs together with CPUs; NCCL would fail without saying why.

    Args:
        cards: of all processes, by rank.

    Raises:
        UserError: it is so.
    """
    for (first, (machine, gpu)), (second, (other, other_gpu)) in combinations(enumerate(cards), 2):
        if gpu and gpu == other_gpu:
            raise UserError(
                f"processes {first} and {second} would share one GPU of {machine} ({gpu}); start one process per GPU, "
                "or let each see its own (CUDA_VISIBLE_DEVICES)."
            )
        if bool(gpu) != bool(other_gpu):
            without = machine if other_gpu else other
            raise UserError(
                f"of processes {first} and {second} one has a GPU and the other, on {without}, has none that is "
                "usable; use machines that are alike, or train.device=cpu."
            )
