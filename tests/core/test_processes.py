"""Worker processes and what ends them."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from t0train.core.processes import SIGNALS, no_interrupts_for_children, stop_on_signals

SCRIPT = """
import multiprocessing, sys, time
from concurrent.futures import ProcessPoolExecutor
from t0train.core.processes import follow_parent
from t0train.core.processes import no_interrupts_for_children

if __name__ == "__mp_main__":  # a worker, which imports slow libraries
    print("worker", flush=True)
    time.sleep(2)

def work(number):
    return number

if __name__ == "__main__":
    pool = ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), follow_parent)
    try:
        with no_interrupts_for_children():
            futures = [pool.submit(work, number) for number in range(2)]
        for future in futures:
            future.result()
        time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted", [future.result() for future in futures])
    finally:
        pool.shutdown()
"""


def test_ctrl_c_reaches_the_parent_alone_even_while_workers_start(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script)]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert job.stdout is not None
    assert [job.stdout.readline(), job.stdout.readline()] == ["worker\n"] * 2
    time.sleep(0.2)
    os.killpg(job.pid, signal.SIGINT)
    out, err = job.communicate(timeout=60)
    assert (job.returncode, out, err) == (0, "interrupted [0, 1]\n", "")


def test_signals_set_the_flag_and_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    for number in SIGNALS:
        with stop_on_signals() as stop:
            assert not stop
            os.kill(os.getpid(), number)
            assert stop
            assert stop.signal == number.name
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_block_inside_another_has_its_flag() -> None:
    with stop_on_signals() as outer:
        os.kill(os.getpid(), signal.SIGTERM)
        with stop_on_signals() as inner:
            assert inner.signal == "SIGTERM"
        os.kill(os.getpid(), signal.SIGUSR1)
        assert outer.signal == "SIGUSR1"


def test_outside_the_main_thread_nothing_is_touched() -> None:
    found = []

    def work() -> None:
        with stop_on_signals() as stop:
            found.append((bool(stop), signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, before)]


PROGRAM = """
import sys, time
from t0train.core.processes import stop_on_signals

with stop_on_signals(announce=True) as stop:
    print("ready", flush=True)
    while not stop:
        time.sleep(0.01)
    time.sleep(float(sys.argv[1]))
print("saved", stop.signal, flush=True)
"""
IN_CPP = """
from datetime import timedelta
from torch.distributed import TCPStore
from t0train.core.processes import stop_on_signals

store = TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=60), wait_for_workers=False)
with stop_on_signals(announce=True):
    print("ready", flush=True)
    store.wait(["nobody sets this key"])  # in which Python's own handlers do not run
"""


def begin(program: str, *arguments: str, prefix: Sequence[str] = ()) -> subprocess.Popen[str]:
    command = [*prefix, sys.executable, "-c", program, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def test_the_first_ctrl_c_lets_the_block_end_and_says_so() -> None:
    process = begin(PROGRAM, "0.3")
    process.send_signal(signal.SIGINT)
    said, told = process.communicate(timeout=30)
    assert (process.returncode, said) == (0, "saved SIGINT\n")
    assert told == "Ctrl-C: saving a checkpoint after this step; press again to end at once\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_other_signals_say_so_once(number: signal.Signals) -> None:
    process = begin(PROGRAM, "0.5")
    process.send_signal(number)
    time.sleep(0.2)
    process.send_signal(number)
    said, told = process.communicate(timeout=30)
    assert (process.returncode, said) == (0, f"saved {number.name}\n")
    assert told == f"{number.name}: saving a checkpoint after this step\n"


@pytest.mark.parametrize("program", [PROGRAM, pytest.param(IN_CPP, marks=pytest.mark.slow)])
def test_the_second_ctrl_c_ends_at_once(program: str) -> None:
    process = begin(program, "600")
    process.send_signal(signal.SIGINT)
    assert process.stderr
    assert process.stderr.readline().startswith("Ctrl-C: saving")
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert told == "Ctrl-C again: ended at once, without another checkpoint\n"


def test_what_nohup_ignores_stays_ignored() -> None:
    process = begin(PROGRAM, "0", prefix=["sh", "-c", 'trap "" HUP INT; exec "$@"', "sh"])
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    said, told = process.communicate(timeout=30)
    assert (process.returncode, said) == (0, "saved SIGTERM\n")
    assert told == "SIGTERM: saving a checkpoint after this step\n"


def test_a_run_whose_terminal_is_closed_goes_on_to_save(tmp_path: Path) -> None:
    """The kernel sends SIGHUP, and every write to the terminal fails from then on."""
    after = f"print('loss', flush=True); open({str(tmp_path / 'saved')!r}, 'w').write(stop.signal)"
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", PROGRAM + after, "0.5"])
    assert b"ready" in os.read(terminal, 100)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (tmp_path / "saved").read_text() == "SIGHUP"


def test_children_do_not_receive_the_terminals_ctrl_c() -> None:
    with no_interrupts_for_children():
        child = subprocess.Popen(["sleep", "60"])
    child.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert child.poll() is None
    child.terminate()
    assert child.wait(30) == -signal.SIGTERM


def test_a_ctrl_c_while_children_are_started_is_not_lost() -> None:
    def start() -> None:
        with no_interrupts_for_children():
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        start()
