"""Several processes that use one store at once, and what is left of those that are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from t0train.data import open_loader, verify_store
from tests.data.conftest import Configure, train_vocabulary

PREPARE = [sys.executable, "-m", "t0train", "data", "prepare"]


@pytest.fixture
def config(configure: Configure, tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"mixture": {"name": "catalogue"}, "data": configure().data.model_dump()}))
    return path


def start(config: Path, *overrides: str, workers: int = 1) -> subprocess.Popen[str]:
    command = [*PREPARE, str(config), *overrides, "--workers", str(workers), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def made(job: subprocess.Popen[str]) -> list[str]:
    """Tasks that a job made itself; it must have ended well."""
    out, err = job.communicate(timeout=120)
    assert job.returncode == 0, err
    return [task["task"] for task in json.loads(out) if task["made"]]


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_at_work(store: Path) -> bool:
    return any((store / ".work").glob("*/*.arrow"))


def leftovers(store: Path) -> list[str]:
    return [path.name for path in store.rglob(".*") if path.name != ".lock"]


@pytest.mark.slow
def test_three_jobs_prepare_one_store_and_nothing_twice(config: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = start(config)
    wait_until(lambda: is_at_work(store))
    others = [start(config), start(config, "mixture.include=[stories]")]
    all_made = [task for job in (first, *others) for task in made(job)]
    assert sorted(all_made) == ["colours_ask", "colours_only_blue", "colours_open", "stories_pick", "stories_tell"]
    assert leftovers(store) == []


@pytest.mark.slow
def test_a_job_waits_for_the_one_before_and_takes_over_when_it_is_killed(
    config: Path, tmp_path: Path, configure: Configure
) -> None:
    store = tmp_path / "store"
    first = start(config)
    wait_until(lambda: is_at_work(store))
    first.send_signal(signal.SIGSTOP)  # it holds the store for as long as we like
    second = start(config)
    assert second.stderr is not None
    line = second.stderr.readline()
    assert line.startswith(f"waiting for another process (process {first.pid} on ")
    assert f"preparing tasks in {store}" in line
    first.kill()
    first.wait()
    assert len(made(second)) == 5
    assert leftovers(store) == []
    assert sum(open_loader(configure()).task_sizes) > 5000


@pytest.mark.slow
def test_two_vocabularies_in_one_store(config: Path, tmp_path: Path) -> None:
    other = train_vocabulary(tmp_path / "other.model", extra=" zzz qqq")
    jobs = [start(config), start(config, f"data.vocabulary={other}")]
    assert [len(made(job)) for job in jobs] == [5, 5]
    assert len(list(verify_store(tmp_path / "store"))) == 10


def test_who_opens_a_store_waits_for_those_who_prepare_it(
    config: Path, tmp_path: Path, configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    job = start(config)
    wait_until(lambda: is_at_work(tmp_path / "store"))
    assert len(open_loader(configure()).task_names) == 5
    assert f"waiting for another process (process {job.pid} on " in capsys.readouterr().err
    assert len(made(job)) == 5


def children(process: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.slow
def test_nothing_of_killed_preparations_survives_the_next_start(config: Path, tmp_path: Path) -> None:
    draw, store = random.Random(0), tmp_path / "store"
    for kill in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT) * 2:
        for folder in store.glob("*/*"):  # all is to be done again; shards of the last round are kept
            if not folder.parent.name.startswith("."):
                os.rename(folder / "manifest.json", folder / "was.json")
        job = start(config, workers=2)
        time.sleep(draw.uniform(1.0, 4.0))
        workers = [child for process in children(job.pid) for child in (process, *children(process))]
        job.send_signal(kill)
        job.communicate(timeout=60)
        wait_until(lambda: not any(map(is_running, workers)))  # noqa: B023 (called within the round)
        made(start(config))
        assert leftovers(store) == []
        assert not any(isinstance(result, Exception) for result in verify_store(store))
