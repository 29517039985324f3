"""Worker processes and what ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = """
import multiprocessing, sys, time
from concurrent.futures import ProcessPoolExecutor
from t0train.core.processes import follow_parent
from t0train.core.stop import no_interrupts_for_children

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
