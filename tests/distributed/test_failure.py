"""One process fails: all end, within a minute, and one of them says why. One is asked to stop: all stop at one step."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from t0train.core.events import read_events
from t0train.core.processes import StopRequest
from t0train.distributed.launch import _wait
from tests.distributed.helpers import ENVIRONMENT, assert_same_events, ends, start_like_srun, torchrun
from tests.training.helpers import steps_of, wait_for_step

SCRIPT = str(Path(__file__).with_name("failing_run.py"))
SETTINGS = ("train.batch.rows=6", "train.checkpoint.every=2", "train.canary=false", "train.timeout_s=20")
START_S, END_S = 120, 60  # for processes to start on a busy machine; to end after one of them has failed


def start(world: Path, output: Path, processes: int, how: str, step: int, rank: int) -> list[subprocess.Popen[str]]:
    settings = (str(world / "run.yaml"), f"output={output}", "train.steps=8", *SETTINGS)
    return start_like_srun(processes, SCRIPT, how, str(step), str(rank), "train", *settings)


@pytest.mark.parametrize(
    ("how", "rank", "code", "message"),
    [
        ("bad input", 1, 2, "error: this process is unwell"),
        ("bug", 0, 1, "ZeroDivisionError: a bug in one process"),
        ("kill", 1, 1, r"error: process [02] of 3 lost contact .*Run the same command again"),
    ],
)
def test_one_failure_ends_all(world: Path, tmp_path: Path, how: str, rank: int, code: int, message: str) -> None:
    processes = start(world, tmp_path / "run", 3, how, 3, rank)
    wait_for_step(processes[0], tmp_path / "run", 3, START_S)
    found = ends(processes, END_S)
    assert [code for code, _ in found] == [-signal.SIGKILL if how == "kill" and rank == i else code for i in range(3)]
    assert sum(len(re.findall(message, stderr)) for _, stderr in found) == 1, found
    assert [event["step"] for event in steps_of(tmp_path / "run")] == [1, 2, 3]
    assert (tmp_path / "run" / "checkpoints" / "latest").read_text() == "step-00000002\n"


def test_a_loss_that_is_not_finite_is_told_once_with_the_tasks_of_all(world: Path, tmp_path: Path) -> None:
    settings = (str(world / "run.yaml"), f"output={tmp_path / 'run'}", "optimizer.lr=1e38", *SETTINGS)
    found = ends(start_like_srun(2, "-m", "t0train", "train", *settings), START_S)
    assert [code for code, _ in found] == [2, 2]
    (message,) = [stderr for _, stderr in found if "error: step 2: the loss is nan" in stderr]
    concerned = sum(int(count) for count in re.findall(r"(?:colours|counting)\w+ \((\d+)\)", message))
    assert [event["step"] for event in steps_of(tmp_path / "run")] == [1]
    assert concerned >= 6, "an example at least on each row of both processes"


@pytest.mark.parametrize("strategy", ["fsdp", "ddp"])
def test_weights_that_are_not_finite_in_one_process_are_not_saved(world: Path, tmp_path: Path, strategy: str) -> None:
    """The process spoils its part of the embedding after step 4, when a checkpoint is due."""
    run = tmp_path / "run"
    settings = (str(world / "run.yaml"), f"output={run}", "train.steps=8", f"train.strategy={strategy}", *SETTINGS)
    found = ends(start_like_srun(2, SCRIPT, "spoil", "3", "1", "train", *settings), START_S)
    assert [code for code, _ in found] == [2, 2]
    (message,) = [stderr for _, stderr in found if "error: " in stderr]
    assert "step 4: model.shared.weight holds infinite or undefined values after the optimizer step" in message
    assert [path.name for path in (run / "checkpoints").glob("step-*")] == ["step-00000002"]
    assert (run / "checkpoints" / "latest").read_text() == "step-00000002\n"


@pytest.mark.parametrize(
    ("rank", "expected"), [(0, [(1, True), (2, False), (4, False)]), (1, [(2, False), (4, False)])]
)
def test_the_first_clock_says_when_a_temporary_checkpoint_is_due(
    world: Path, tmp_path: Path, rank: int, expected: list[tuple[int, bool]]
) -> None:
    """One process believes that an hour has passed since the start."""
    run = tmp_path / "run"
    settings = (str(world / "run.yaml"), f"output={run}", "train.steps=4", "train.checkpoint.minutes=30", *SETTINGS)
    found = ends(start_like_srun(2, SCRIPT, "early clock", "9", str(rank), "train", *settings), START_S)
    assert [code for code, _ in found] == [0, 0], found
    written = read_events(run / "events.jsonl", "checkpoint")
    assert [(event["step"], event["temporary"]) for event in written] == expected
    assert sorted(path.name for path in (run / "checkpoints").glob("step-*")) == ["step-00000002", "step-00000004"]


def test_a_process_that_hangs_is_not_waited_for_longer_than_the_timeout(world: Path, tmp_path: Path) -> None:
    processes = start(world, tmp_path / "run", 2, "hang", 3, 1)
    wait_for_step(processes[0], tmp_path / "run", 3, START_S)
    found = ends(processes, END_S)
    assert [code for code, _ in found] == [1, 1]
    assert "process 0 of 2 lost contact" in found[0][1]


def test_a_killed_process_is_missed_by_processes_that_cannot_notice_it(world: Path, tmp_path: Path) -> None:
    processes = start(world, tmp_path / "run", 3, "kill while others sleep", 3, 1)
    wait_for_step(processes[0], tmp_path / "run", 3, START_S)
    found = ends(processes, END_S)
    assert [code for code, _ in found] == [1, -signal.SIGKILL, 1]
    assert "error: process 1 has given no sign of life for 20 s: it was killed" in found[0][1]
    for rank in (0, 2):
        assert f"process {rank} of 3 is ended: process 1 failed (exit code 1: failure)" in found[rank][1]


def test_processes_that_cannot_notice_it_miss_the_first_one_with_its_store(world: Path, tmp_path: Path) -> None:
    processes = start(world, tmp_path / "run", 2, "kill while others sleep", 3, 0)
    wait_for_step(processes[0], tmp_path / "run", 3, START_S)
    found = ends(processes, END_S)
    assert [code for code, _ in found] == [-signal.SIGKILL, 1]
    assert re.search(r"error: process 1 of 2 is ended: contact was lost with 127\.0\.0\.1:\d+", found[1][1])


def test_torchrun_restarts_a_killed_process(world: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = (str(world / "run.yaml"), f"output={run}", "train.steps=6", *SETTINGS)
    torchrun(2, SCRIPT, "kill", "3", "0", "train", *settings, options=("--max-restarts=1",))
    assert [event["step"] for event in steps_of(run)] == [1, 2, 3, 4, 5, 6]
    assert [event["step"] for event in read_events(run / "events.jsonl", "resume")] == [2]


def test_a_signal_to_one_stops_all_at_one_step_and_the_run_goes_on(world: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    processes = start(world, run, 2, "term", 3, 1)
    found = ends(processes, START_S)
    assert [code for code, _ in found] == [85, 85], found
    assert sum(stderr.count("stopped: ") for _, stderr in found) == 1
    assert "stopped: a signal received; step 4 is saved in" in found[0][1]
    assert (run / "checkpoints" / "latest").read_text() == "step-00000004\n"
    assert ends(start(world, run, 3, "nothing", 0, 0), START_S)[0][0] == 0
    straight = tmp_path / "straight"
    assert ends(start(world, straight, 1, "nothing", 0, 0), START_S)[0][0] == 0
    assert_same_events(run, straight)


def test_a_signal_to_one_that_starts_stops_all_without_a_checkpoint(world: Path, tmp_path: Path) -> None:
    processes = start(world, tmp_path / "run", 2, "term at start", 0, 1)
    found = ends(processes, START_S)
    assert [code for code, _ in found] == [85, 85], found
    assert "stopped: a signal received before the first step; run the same command again." in found[0][1]
    assert not list((tmp_path / "run" / "checkpoints").glob("step-*"))


@pytest.mark.parametrize("children", [0, 2])
def test_a_signal_while_torch_is_imported(world: Path, tmp_path: Path, children: int) -> None:
    process = launcher(world, tmp_path / "run", "train.steps=500", *(("--nproc", str(children)) if children else ()))
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and not loads_torch(process.pid, children):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=START_S)
    assert process.returncode == 85, stderr
    assert stderr.count("stopped: SIGTERM received before the first step") == 1
    assert not (tmp_path / "run").exists()


def loads_torch(pid: int, children: int) -> bool:
    """Whether the process, or all its children, have torch's library open."""
    with suppress(FileNotFoundError, ProcessLookupError):
        pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split() if children else [str(pid)]
        opened = ["libtorch" in Path(f"/proc/{one}/maps").read_text() for one in pids]
        return all(opened) and len(opened) == max(children, 1)
    return False


def test_a_process_that_a_signal_ends_before_it_can_note_it(capsys: pytest.CaptureFixture[str]) -> None:
    def wait(stop: StopRequest, sent: int) -> int:
        children = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
        for child in children:
            child.send_signal(sent)
        return _wait(children, stop)

    assert wait(StopRequest("SIGTERM"), 0) == 85
    assert capsys.readouterr().err == "stopped: SIGTERM received; run the same command again.\n"
    assert wait(StopRequest(), signal.SIGTERM) == 1
    assert "error: process 0 of the run was ended by SIGTERM" in capsys.readouterr().err
    assert wait(StopRequest("SIGUSR1"), signal.SIGKILL) == 1


def launcher(world: Path, output: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "t0train", "train", str(world / "run.yaml"), f"output={output}"]
    return subprocess.Popen([*command, *SETTINGS, *arguments], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)


def test_nproc_passes_signals_and_exit_codes_on(world: Path, tmp_path: Path) -> None:
    process = launcher(world, tmp_path / "run", "train.steps=500", "--nproc", "2")
    wait_for_step(process, tmp_path / "run", 2, START_S)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=END_S)
    assert process.returncode == 85, stderr
    assert stderr.count("stopped: SIGTERM received") == 1


def test_nproc_says_bad_input_once(world: Path, tmp_path: Path) -> None:
    process = launcher(world, tmp_path / "run", "train.batch.rows=5", "--nproc", "2")
    _, stderr = process.communicate(timeout=START_S)
    assert process.returncode == 2
    assert stderr.startswith("error: train.batch.rows is 5")
    assert len(stderr.splitlines()) == 1, "before processes start"
    assert not (tmp_path / "run").exists()


def test_processes_do_not_outlive_a_killed_launcher(world: Path, tmp_path: Path) -> None:
    process = launcher(world, tmp_path / "run", "train.steps=100000", "--nproc", "2")
    wait_for_step(process, tmp_path / "run", 2, START_S)
    process.kill()
    deadline = time.monotonic() + END_S
    while time.monotonic() < deadline:
        done = len(steps_of(tmp_path / "run"))
        time.sleep(3)
        if len(steps_of(tmp_path / "run")) == done:
            return
    raise AssertionError("the run goes on without its launcher")
