"""Stopping on request, and showing how far a run is."""

from __future__ import annotations

import io
import os
import signal
import threading

import pytest

from ecgcmr.training.progress import ProgressEvent, show_progress
from ecgcmr.training.signals import stop_on_signal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_on_signal__asks_once_then_interrupts(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_on_signal() as request:
        assert not request.asked
        os.kill(os.getpid(), number)
        assert request.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_stop_on_signal__outside_the_main_thread() -> None:
    asked = []

    def work() -> None:
        with stop_on_signal() as request:
            asked.append(request.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert asked == [False]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_show_progress__bar_with_time_left_in_a_terminal() -> None:
    stream = Terminal()
    with show_progress(True, stream) as report:
        for done in (1, 5, 10):
            report(ProgressEvent("pretraining", done, 10, "loss 0.5"))
    shown = stream.getvalue()
    assert "pretraining" in shown
    assert "10/10" in shown
    assert "loss 0.5" in shown
    assert "0:00:00" in shown


def test_show_progress__silent_in_a_file_or_when_told() -> None:
    for show, stream in ((True, io.StringIO()), (False, Terminal())):
        with show_progress(show, stream) as report:
            report(ProgressEvent("x", 1, 2))
        assert stream.getvalue() == ""


def test_show_progress__callback_gets_every_event() -> None:
    events: list[ProgressEvent] = []
    with show_progress(events.append) as report:
        report(ProgressEvent("x", 1, 2))
    assert events == [ProgressEvent("x", 1, 2)]
