"""One worker process: what runs in it, and the handle by which its parent feeds, watches and ends it."""

import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import cv2

if sys.platform != "win32":
    import resource

Item = TypeVar("Item")
Result = TypeVar("Result")
Context = ForkServerContext | SpawnContext

Failure = Literal[
    "crashed",  # it brought its process down
    "timeout",  # it took longer than its limit
    "out-of-memory",  # it needed more memory than its limit
]

_OUT_OF_MEMORY = b""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one item may take; None is no limit.

    Attributes:
        seconds: Wall-clock time.
        memory: Bytes that its process may hold beyond those it holds as it starts. Only Linux enforces it.
    """

    seconds: float | None = None
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class Task(Generic[Item]):
    """An item and its place in the order."""

    number: int
    item: Item


class Worker(Generic[Item, Result]):
    """A process that applies a function to the items it is given, one after the other.

    Attributes:
        tasks: What it was given and has not answered, the one under way first.
        answered: How many items it has answered.
        ready: Whether it has started; a process that dies before cannot be blamed on an item.
    """

    def __init__(self, function: Callable[[Item], Result], limits: Limits, context: Context) -> None:
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, function, limits.memory), daemon=True)
        self._process.start()
        theirs.close()
        self.tasks: deque[Task[Item]] = deque()
        self.answered = 0
        self.ready = False
        self._seconds = limits.seconds
        self._since: float | None = None

    def give(self, tasks: Sequence[Task[Item]]) -> None:
        """Append tasks; one that is not under way yet waits in the pipe."""
        self.tasks.extend(tasks)
        with suppress(OSError):  # a dead one: receiving from it will tell
            for task in tasks:
                self.connection.send(task.item)
        self._restart_clock(only_if_stopped=True)

    def receive(self) -> tuple[bool, Any] | None:
        """Take one message: None once it is ready, else whether the item under way succeeded, and its result.

        Raises:
            EOFError: The process is dead.
            MemoryError: The item under way needed too much; the process ends.
        """
        try:
            message = self.connection.recv_bytes()
        except OSError as error:
            raise EOFError from error
        if not self.ready:
            self.ready = True
            self._restart_clock()
            return None
        if message == _OUT_OF_MEMORY:
            raise MemoryError
        self.tasks.popleft()
        self.answered += 1
        self._restart_clock()
        answer: tuple[bool, Any] = ForkingPickler.loads(message)
        return answer

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the item under way overruns; None where nothing can."""
        if self._since is None or self._seconds is None:
            return None
        return max(0.0, self._since + self._seconds - time.monotonic())

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self.connection.close()
        self._process.kill()
        self._process.join()
        self._process.close()

    def _restart_clock(self, *, only_if_stopped: bool = False) -> None:
        if not (self.ready and self.tasks):
            self._since = None
        elif self._since is None or not only_if_stopped:
            self._since = time.monotonic()


def _work(connection: Any, function: Callable[[Any], Any], memory: int | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then stops its workers
    cv2.setNumThreads(1)
    threading.Thread(target=_follow_parent, daemon=True).start()
    if sys.platform != "win32":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold headers, and lie where nobody looks
    if memory is not None:
        _limit_memory(memory)
    connection.send_bytes(b"ready")
    _hush()
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        try:
            answer = ForkingPickler.dumps((True, function(item)))
        except MemoryError:
            connection.send_bytes(_OUT_OF_MEMORY)
            return  # what the item left behind ends with the process
        except Exception as error:
            answer = ForkingPickler.dumps((False, error))
        connection.send_bytes(answer)


def _hush() -> None:
    """Drop what native libraries print about broken files: it could quote them, and it tears the progress bar."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)


def _limit_memory(memory: int) -> None:
    """Let private memory (heap, anonymous maps, thread stacks) grow by `memory` bytes; files mapped do not count."""
    if sys.platform != "linux":
        return
    held = re.search(r"^VmData:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if held is not None:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        limit = int(held[1]) * 1024 + memory
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # the parent was killed: nobody waits for this process any more
