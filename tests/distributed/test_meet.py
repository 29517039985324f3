"""Processes find each other in a store in which others may have met before."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from t0train.core.errors import LostContactError, PreemptedError
from t0train.core.processes import stop_on_signals
from t0train.distributed import Place
from t0train.distributed import meet as meet_module
from t0train.distributed.meet import meet
from tests.distributed.helpers import ENVIRONMENT, free_port


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


def test_who_waits_says_for_whom(
    server: TCPStore, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(meet_module, "_NOTICE_AFTER_S", 0.4)
    with pytest.raises(LostContactError):
        all_meet(server, [0, 2], 4, timeout_s=1)
    (line,) = capfd.readouterr().err.splitlines()  # said once: the first process is there, and speaks for the others
    where = f"127.0.0.1:{server.port}"
    assert re.fullmatch(rf"process 0 of 4 has waited \d s at {where} for process 1, process 3; it gives up .*", line)
    with pytest.raises(LostContactError, match=r"process [12] of 3 has waited 1 s at .* for process 0"):
        all_meet(server, [1, 2], 3, timeout_s=1)
    lines = sorted(capfd.readouterr().err.splitlines())
    assert [line[:16] for line in lines] == ["process 1 of 3 h", "process 2 of 3 h"]
    assert all(f"at {where} for process 0; it gives up after 1 s (train.timeout_s)" in line for line in lines)


def test_who_waits_for_one_to_listen_says_so(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(meet_module, "_NOTICE_AFTER_S", 0.4)
    port = free_port()
    with pytest.raises(LostContactError, match=f"cannot reach 127.0.0.1:{port}"):
        meet(Place(1, 2, 1, 2, ("127.0.0.1", port)), timeout_s=1)
    said = capfd.readouterr().err
    assert f"process 1 of 2 has waited 0 s at 127.0.0.1:{port} for process 0, which is to listen there; it" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("rank", "listens"), [(0, True), (1, True), (1, False)])
def test_a_signal_ends_the_waiting(
    server: TCPStore, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, rank: int, listens: bool
) -> None:
    monkeypatch.setattr(meet_module, "_GRACE_S", 0.5)
    port = server.port if listens else free_port()
    place = Place(rank, 2, rank, 2, ("127.0.0.1", port), has_launcher=True)
    sender = threading.Timer(0.5, os.kill, (os.getpid(), number))
    expected = f"{number.name} received while process {rank} of 2 waited for process {1 - rank}"
    start = time.monotonic()
    with stop_on_signals():
        sender.start()
        with pytest.raises(PreemptedError, match=expected):
            meet(place, timeout_s=8)
    sender.join()
    assert time.monotonic() - start < 6


def test_who_left_is_not_counted_on(server: TCPStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meet_module, "_GRACE_S", 0.2)
    with ThreadPoolExecutor() as pool, stop_on_signals() as stop:
        stop.signal = "SIGTERM"
        with pytest.raises(PreemptedError):
            meet(Place(1, 3, 1, 3, ("127.0.0.1", server.port), has_launcher=True), timeout_s=20)
        stop.signal = ""
        others = pool.submit(all_meet, server, [0, 2], 3, 1)
        with pytest.raises(LostContactError, match="for process 1 "):
            others.result()


@pytest.mark.distributed
@pytest.mark.slow
def test_a_run_that_waits_for_a_process_ends_on_sigterm(world: Path, tmp_path: Path) -> None:
    environment = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    process = subprocess.Popen(
        [sys.executable, "-m", "t0train", "train", str(world / "run.yaml"), f"output={tmp_path / 'run'}"],
        env={**ENVIRONMENT, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    with process:
        assert any(
            line.startswith("process 0 of 2 has waited 5 s") and "for process 1" in line for line in process.stderr
        )
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 85
    assert "stopped: SIGTERM received while process 0 of 2 waited for process 1; run the same command again." in said
    assert not (tmp_path / "run").exists()
