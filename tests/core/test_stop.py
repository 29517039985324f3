"""Signals only raise a flag, and only within the block."""

from __future__ import annotations

import os
import signal
import threading

from t0train.core.stop import SIGNALS, stop_on_signals


def test_signals_set_the_flag_and_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    for number in SIGNALS:
        with stop_on_signals() as stop:
            assert not stop
            os.kill(os.getpid(), number)
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
