"""Two machines: two network namespaces of this one, joined by a cable that can be cut.

Only root may make them. Others run this file once more as the root of a user namespace, where the system allows that.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.distributed.helpers import ENVIRONMENT, assert_same_events
from tests.training.helpers import steps_of, wait_for_step

START_S, TIMEOUT_S = 180, 20
IS_ROOT = os.geteuid() == 0
DEVICES = ("t0va", "t0vb")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)


@pytest.fixture
def names() -> Iterator[tuple[str, str]]:
    """Two namespaces with the addresses 10.213.0.1 and 10.213.0.2."""
    both = (f"t0a{os.getpid()}", f"t0b{os.getpid()}")
    if not shutil.which("ip"):
        pytest.skip("two network namespaces: needs iproute2")
    try:
        for name in both:
            ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        for name in both:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        pytest.skip(f"two network namespaces: {error.stderr.decode().strip()}")
    try:
        ip("link", "add", DEVICES[0], "netns", both[0], "type", "veth", "peer", "name", DEVICES[1], "netns", both[1])
        for name, device, address in zip(both, DEVICES, ("10.213.0.1/24", "10.213.0.2/24"), strict=True):
            ip("-n", name, "addr", "add", address, "dev", device)
            ip("-n", name, "link", "set", device, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield both
    finally:
        for name in both:
            ip("netns", "del", name)


class Machine:
    """torchrun in a namespace; both meet by its c10d rendezvous."""

    def __init__(
        self, name: str, number: int, processes: int, world: Path, run: Path, steps: int, restarts: int
    ) -> None:
        self.name = name
        self.said = run.with_name(f"{run.name}-{number}.txt")
        launcher = (
            *("-m", "torch.distributed.run", "--nnodes=2", f"--nproc-per-node={processes}", "--rdzv-backend=c10d"),
            *("--rdzv-endpoint=10.213.0.1:29511", "--rdzv-id=t0", f"--local-addr=10.213.0.{number + 1}"),
            *(
                "--rdzv-conf",
                f"is_host={number == 0}",
                f"--max-restarts={restarts}",
                "-m",
                "t0train",
                "train",
                str(world / "run.yaml"),
            ),
        )
        settings = (f"output={run}", f"train.steps={steps}", "train.checkpoint.every=2", f"train.timeout_s={TIMEOUT_S}")
        rows = ("train.batch.rows=6", "train.canary=false", "train.strategy=fsdp")
        with self.said.open("w") as stream:
            self.torchrun = subprocess.Popen(
                ["ip", "netns", "exec", name, sys.executable, *launcher, *settings, *rows],
                env={**ENVIRONMENT, "GLOO_SOCKET_IFNAME": DEVICES[number]},
                stdout=stream,
                stderr=stream,
                text=True,
            )

    def trainers(self) -> list[int]:
        """The training processes."""
        pids = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True).stdout
        return [int(pid) for pid in pids.split() if int(pid) != self.torchrun.pid]


def start(names: tuple[str, str], world: Path, run: Path, steps: int, restarts: int = 0) -> list[Machine]:
    """Two processes on the first machine, one on the second."""
    return [Machine(name, number, 2 - number, world, run, steps, restarts) for number, name in enumerate(names)]


def finish(machines: list[Machine]) -> None:
    for machine in machines:
        assert machine.torchrun.wait(START_S) == 0, machine.said.read_text()


def test_one_run_on_two_machines_and_a_cut_cable(names: tuple[str, str], world: Path, tmp_path: Path) -> None:
    straight, run = tmp_path / "straight", tmp_path / "run"
    finish(start(names, world, straight, 8))
    assert [event["step"] for event in steps_of(straight)] == list(range(1, 9))

    machines = start(names, world, run, 100_000)
    wait_for_step(machines[0].torchrun, run, 3, START_S)
    ip("-n", names[0], "link", "set", DEVICES[0], "down")
    deadline = time.monotonic() + TIMEOUT_S + 60
    while time.monotonic() < deadline and any(machine.trainers() for machine in machines):
        time.sleep(0.2)
    assert [machine.trainers() for machine in machines] == [[], []]
    for machine in machines:  # each side says it: they cannot agree on who does
        assert re.search("lost contact with another|no sign of life|contact was lost", machine.said.read_text())
        assert "Run the same command again" in machine.said.read_text()
        machine.torchrun.kill()  # it waits for the other machine for minutes
        machine.torchrun.wait()
    ip("-n", names[0], "link", "set", DEVICES[0], "up")
    done = len(steps_of(run))

    finish(start(names, world, run, done + 2))
    assert [event["step"] for event in steps_of(run)] == list(range(1, done + 3))
    assert_same_events(run, straight, last_step=min(done + 2, 8))


def test_torchrun_restarts_the_processes_of_both_machines(names: tuple[str, str], world: Path, tmp_path: Path) -> None:
    machines = start(names, world, tmp_path / "run", 30, restarts=5)
    wait_for_step(machines[0].torchrun, tmp_path / "run", 3, START_S)
    os.kill(machines[1].trainers()[0], signal.SIGKILL)
    finish(machines)
    assert [event["step"] for event in steps_of(tmp_path / "run")] == list(range(1, 31))


def test_the_same_without_root(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    as_its_root = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
    if not shutil.which("unshare"):
        pytest.skip("two network namespaces: needs root, or unshare")
    allowed = subprocess.run([*as_its_root, "true"], capture_output=True, text=True, check=False)
    if allowed.returncode:
        pytest.skip(f"two network namespaces: needs root, or user namespaces ({allowed.stderr.strip()})")
    inside = [*as_its_root, "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh"]  # where ip notes namespaces
    tests = [sys.executable, "-m", "pytest", "-rs", f"--basetemp={tmp_path / 'inside'}", __file__]
    ended = subprocess.run(
        [*inside, *tests], cwd=request.config.rootpath, capture_output=True, text=True, timeout=1200, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    if "2 passed" not in ended.stdout:
        pytest.skip(ended.stdout)


if IS_ROOT:
    del test_the_same_without_root
else:  # they run inside it
    del test_one_run_on_two_machines_and_a_cut_cable, test_torchrun_restarts_the_processes_of_both_machines
