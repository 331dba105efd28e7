"""Work spread over processes, in order, that outlives an item which crashes, hangs or devours memory."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, Generic

from mim.data.worker import Context, Failure, Item, Limits, Result, Task, Worker
from mim.errors import MimError

__all__ = ["Failure", "Limits", "available_cores", "map_in_processes", "refuse_unguarded_script"]

_WINDOW = 4  # items a process may run ahead of the slowest one; bounds the results that wait in memory
_AT_HAND = 2  # items a process is given at once, so that it need not wait for its parent between two
_GUARD = 'a script that prepares films must be a file that guards its call with if __name__ == "__main__"'


def refuse_unguarded_script() -> None:
    """Stop where a worker process, as it starts, runs the unguarded calls of the script that started it.

    Raises:
        MimError: This is such a process; it would wait for a lock that its parent holds.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise MimError(_GUARD)


def available_cores() -> int:
    """Count the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_processes(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    failed: Callable[[Item, Failure], Result],
    limits: Limits | None = None,
    preload: Sequence[str] = (),
) -> Iterator[Result]:
    """Apply a function to items in worker processes and yield the results in the order of the items.

    An item that crashes its process, takes too long or needs too much memory costs itself and nothing else: the
    process is replaced, and what it had been given besides goes to the next one. A crash or want of memory in a
    process that has worked before may be the fault of what came before, so the verdict is that of a new process.

    Args:
        function: A function of a module (it is sent by name); what it raises is raised here, except `MemoryError`.
        items: What to apply it to. They wait in pipes, so they should be small.
        workers: How many processes.
        failed: Gives the result of an item that could not be finished.
        limits: What one item may take; none where absent.
        preload: Modules to import once for all processes, where the system can.

    Raises:
        MimError: Worker processes cannot be started at all.
    """
    crew = _Crew(function, workers, limits or Limits(), _context(preload))
    waiting = enumerate(items)
    answers: dict[int, _Answer] = {}
    oldest = given = 0
    try:
        while True:
            while given - oldest < _WINDOW * workers and (numbered := next(waiting, None)) is not None:
                crew.queue.append(Task(*numbered))
                given += 1
            if oldest == given:
                return
            answers.update((answer.task.number, answer) for answer in crew.work())
            while (answer := answers.pop(oldest, None)) is not None:
                oldest += 1
                if answer.error is not None:
                    raise answer.error
                yield answer.result if answer.failure is None else failed(answer.task.item, answer.failure)
    finally:
        crew.stop()


@dataclass(frozen=True, slots=True)
class _Answer:
    task: Task[Any]
    result: Any = None
    error: BaseException | None = None
    failure: Failure | None = None


class _Crew(Generic[Item, Result]):
    """The worker processes, started as there is work for them, and the queue that they take it from."""

    def __init__(self, function: Callable[[Item], Result], size: int, limits: Limits, context: Context) -> None:
        self.queue: deque[Task[Item]] = deque()
        self._function, self._limits, self._context = function, limits, context
        self._size = size
        self._workers: list[Worker[Item, Result]] = []

    def work(self) -> Iterator[_Answer]:
        """Hand out what is queued, wait for something to happen, and yield what came of it."""
        self._hand_out()
        times = [left for worker in self._workers if (left := worker.seconds_left) is not None]
        talking = wait([worker.connection for worker in self._workers], min(times, default=None))
        for worker in list(self._workers):
            if worker.connection in talking:
                yield from self._listen(worker)
            elif worker.seconds_left == 0 and not worker.connection.poll():
                self._replace(worker, blamed=True)
                yield _Answer(worker.tasks[0], failure="timeout")

    def stop(self) -> None:
        """End all processes."""
        while self._workers:
            self._workers.pop().stop()

    def _hand_out(self) -> None:
        while self.queue:
            idlest = min(self._workers, key=lambda worker: len(worker.tasks), default=None)
            if (idlest is None or idlest.tasks) and len(self._workers) < self._size:
                idlest = self._start()
            if idlest is None or len(idlest.tasks) >= _AT_HAND:
                return
            idlest.give([self.queue.popleft()])

    def _listen(self, worker: Worker[Item, Result]) -> Iterator[_Answer]:
        task = worker.tasks[0] if worker.tasks else None
        failure: Failure
        try:
            message = worker.receive()
        except EOFError:
            if not worker.ready:
                raise MimError(f"worker processes die as they start: {_GUARD}, and needs memory for them") from None
            failure = "crashed"
        except MemoryError:
            failure = "out-of-memory"
        else:
            if message is not None and task is not None:
                succeeded, value = message
                yield _Answer(task, value) if succeeded else _Answer(task, error=value)
            return
        blamed = worker.answered == 0
        self._replace(worker, blamed=blamed)
        if blamed and task is not None:
            yield _Answer(task, failure=failure)

    def _replace(self, worker: Worker[Item, Result], *, blamed: bool) -> None:
        """End a process; a new one goes on with its tasks, without the one under way if that is to blame."""
        worker.stop()
        self._workers.remove(worker)
        left = list(worker.tasks)[1 if blamed else 0 :]
        if left:
            self._start().give(left)

    def _start(self) -> Worker[Item, Result]:
        worker = Worker(self._function, self._limits, self._context)
        self._workers.append(worker)
        return worker


def _context(preload: Sequence[str]) -> Context:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "mim.data.worker", *preload])
    return context
