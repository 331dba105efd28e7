"""SIGTERM and SIGUSR1 ask a run to stop; it stops when a step is done."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopSignals:
    """While entered, remembers that a stop signal came instead of dying of it; earlier handlers come back after it.

    Signals can be handled in the main thread of a process only: elsewhere nothing is caught.
    """

    def __init__(self) -> None:
        self.came = False
        self._earlier: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._earlier = {name: signal.signal(name, self._remember) for name in STOP_SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for name, handler in self._earlier.items():
            signal.signal(name, signal.SIG_DFL if handler is None else handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.came = True


@contextmanager
def stopped_by(stop: Callable[[], BaseException]) -> Iterator[None]:
    """Raises what `stop` gives as soon as a stop signal comes, for work that may be broken off anywhere.

    A training within it catches the signals itself, and stops when its step is done.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise stop()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = {name: signal.signal(name, end) for name in STOP_SIGNALS}
    try:
        yield
    finally:
        for name, handler in earlier.items():
            signal.signal(name, signal.SIG_DFL if handler is None else handler)


@contextmanager
def held_back() -> Iterator[None]:
    """Holds stop signals back for a while; they come when it is over.

    Processes started meanwhile never get them. A stop signal often goes to a whole process group, and a reading process
    that died of it would take the step down with it. Nothing but its own end stops such a process: whoever starts one
    sees to it.
    """
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)
