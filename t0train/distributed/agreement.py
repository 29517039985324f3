"""The processes of a run must be of one run: what each of them has read and found is compared before it is used."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from t0train.config import RunConfig
from t0train.config.deviations import flatten
from t0train.core.errors import UserError
from t0train.core.hashing import content_hash, file_sha256
from t0train.core.version import t0train_version
from t0train.distributed.world import World

Facts = Mapping[str, Any]
"""What a process knows of its run, by key, as JSON values."""

_PACKAGE = Path(__file__).resolve().parents[1]
# Copies of these may lie on the disk of each machine. Their contents are compared once they are open.
_OF_MACHINE = {"data.source", "data.store", "data.vocabulary", "data.catalogue", "data.templates"}
_MOST_SHOWN = 300
_ABSENT = "absent"


def code_and_settings(config: RunConfig) -> Facts:
    """What decides a run before anything is opened: the code, the libraries that compute, and every key."""
    keys = {key: value for key, value, *_ in flatten(config) if key not in _OF_MACHINE}
    return {
        "t0train (version)": t0train_version(),
        "t0train (hash of its source files)": _source_hash(),
        **{f"{library} (version)": version(library) for library in ("torch", "numpy")},
        **json.loads(json.dumps(keys)),
    }


@cache
def _source_hash() -> str:
    files = sorted(_PACKAGE.rglob("*.py"))
    return content_hash([[file.relative_to(_PACKAGE).as_posix(), file_sha256(file)] for file in files])


def require_agreement(world: World, own: Facts) -> None:
    """Compare the facts of all processes.

    Args:
        world: the processes, all of which call this.
        own: the facts of this one.

    Raises:
        UserError: in all processes alike, if two differ; names the differing keys, and every value with its processes.
    """
    if world.size == 1:
        return
    host = socket.gethostname()
    if differing := differences(world.together(lambda: (host, own))):
        raise UserError(
            "the processes of this run differ:\n" + "\n".join(f"  {line}" for line in differing) + "\n"
            "Start all of them with the same command, from the same code and with the same files."
        )


def differences(found: Sequence[tuple[str, Facts]]) -> list[str]:
    """One line for each key that is not the same in all processes.

    Args:
        found: host and facts of each process, by rank.
    """
    keys = dict.fromkeys(key for _, facts in found for key in facts)
    lines = []
    for key in keys:
        holders: dict[str, list[int]] = {}
        for rank, (_, facts) in enumerate(found):
            holders.setdefault(_shown(facts[key]) if key in facts else _ABSENT, []).append(rank)
        if len(holders) > 1:
            values = [f"{value} in {_processes(ranks, found)}" for value, ranks in holders.items()]
            lines.append(f"{key}: {'; '.join(values)}")
    return lines


def _shown(value: Any) -> str:
    """A value as JSON; of a long one the beginning and a hash, so that values that differ look different."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}... (hash {content_hash(value)})"


def _processes(ranks: Sequence[int], found: Sequence[tuple[str, Facts]]) -> str:
    by_host: dict[str, list[int]] = {}
    for rank in ranks:
        by_host.setdefault(found[rank][0], []).append(rank)
    return ", ".join(
        f"process{'es' if len(here) > 1 else ''} {_ranges(here)} on {host}" for host, here in by_host.items()
    )


def _ranges(numbers: Iterable[int]) -> str:
    """Ascending numbers with runs shortened: `0-3, 5`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
