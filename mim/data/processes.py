"""Work spread over processes, in order, that outlives a process which a native library brings down."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import TypeVar

import cv2

from mim.errors import MimError

Item = TypeVar("Item")
Result = TypeVar("Result")

_WINDOW = 4  # items a process may run ahead of the slowest one; bounds the results that wait in memory
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
    crashed: Callable[[Item], Result],
    preload: Sequence[str] = (),
) -> Iterator[Result]:
    """Apply a function to items in worker processes and yield the results in the order of the items.

    When a process dies, the items under way are tried again one by one in a process of their own; that finds the
    guilty one, and the others lose nothing.

    Args:
        function: A function of a module (it is sent by name); what it raises is raised here.
        items: What to apply it to.
        workers: How many processes.
        crashed: Gives the result of an item that brings its process down.
        preload: Modules to import once for all processes, where the system can.

    Raises:
        MimError: Worker processes cannot be started at all.
    """
    waiting = iter(items)
    pending: deque[tuple[Item, Future[Result]]] = deque()
    context = _context(preload)
    pool = _new_pool(workers, context)
    try:
        while True:
            for item in waiting:
                pending.append((item, _submit(pool, function, item)))
                if len(pending) >= _WINDOW * workers:
                    break
            if not pending:
                return
            try:
                result = pending[0][1].result()
            except BrokenProcessPool:
                pool.shutdown(wait=True, cancel_futures=True)
                yield from _retry(function, pending, crashed, context)
                pending.clear()
                pool = _new_pool(workers, context)
            else:
                pending.popleft()
                yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, function: Callable[[Item], Result], item: Item) -> Future[Result]:
    try:
        return pool.submit(function, item)
    except BrokenProcessPool as error:
        failed: Future[Result] = Future()
        failed.set_exception(error)
        return failed


def _retry(
    function: Callable[[Item], Result],
    pending: Iterable[tuple[Item, Future[Result]]],
    crashed: Callable[[Item], Result],
    context: BaseContext,
) -> Iterator[Result]:
    pool = _new_pool(1, context)
    try:
        for item, future in pending:
            if future.done() and not future.cancelled() and future.exception() is None:
                yield future.result()
                continue
            try:
                pool.submit(os.getpid).result()
            except BrokenProcessPool as error:
                raise MimError(f"worker processes die as they start: {_GUARD}, and needs memory for them") from error
            try:
                result = pool.submit(function, item).result()
            except BrokenProcessPool:
                pool.shutdown(wait=True)
                pool = _new_pool(1, context)
                result = crashed(item)
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _context(preload: Sequence[str]) -> BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", *preload])
    return context


def _new_pool(workers: int, context: BaseContext) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, context, initializer=_start_worker)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then stops its workers
    cv2.setNumThreads(1)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # the parent was killed: nobody waits for this process any more
