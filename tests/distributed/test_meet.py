"""Processes find each other in a store in which others may have met before."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from t0train.core.errors import LostContactError
from t0train.distributed import Place
from t0train.distributed.meet import meet
from tests.distributed.helpers import free_port


@pytest.fixture
def server() -> TCPStore:
    """The store of a launcher, which outlives the processes."""
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=30))


def all_meet(server: TCPStore, ranks: list[int], size: int, timeout_s: float = 30) -> list[str]:
    places = [Place(rank, size, rank, size, ("127.0.0.1", server.port), has_launcher=True) for rank in ranks]
    with ThreadPoolExecutor(len(places)) as pool:
        return [name for _, name in pool.map(lambda place: meet(place, timeout_s), places)]


def test_those_who_meet_have_one_name_that_nobody_had_before(server: TCPStore) -> None:
    names = [all_meet(server, [0, 1, 2], 3) for _ in range(3)]
    assert all(len(set(of_one_run)) == 1 for of_one_run in names)
    assert len({of_one_run[0] for of_one_run in names}) == 3


def test_those_who_come_back_do_not_meet_the_dead(server: TCPStore) -> None:
    (before,) = set(all_meet(server, [0, 1, 2], 3))
    with pytest.raises(LostContactError, match=r"process 1 of 3 has waited 0\.5 s at .* for process 0"):
        all_meet(server, [1, 2], 3, timeout_s=0.5)  # they die; the first process had not yet started
    (after,) = set(all_meet(server, [2, 1, 0], 3))
    assert after != before


def test_who_did_not_come_is_named(server: TCPStore) -> None:
    all_meet(server, [0, 1, 2, 3], 4)
    with pytest.raises(LostContactError, match=r"process 0 of 4 has waited .* for process 1, process 3 \(train"):
        all_meet(server, [0, 2], 4, timeout_s=1)


def test_nobody_listens() -> None:
    port = free_port()
    place = Place(1, 2, 1, 2, ("127.0.0.1", port))
    with pytest.raises(LostContactError, match=re.escape(f"process 1 of 2 cannot reach 127.0.0.1:{port}")):
        meet(place, timeout_s=0.5)
