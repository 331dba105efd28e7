"""What worker processes are given in the tests: a module of its own, since functions are sent by name."""

import ctypes
import os
import signal
import time
from pathlib import Path

import numpy as np

MEBIBYTE = 1 << 20


def do(job: str) -> str:
    """Do what a job says: `good`, or what goes wrong; `job:argument`."""
    kind, _, argument = job.partition(":")
    if kind == "sleep":
        time.sleep(float(argument))
    elif kind == "spin":
        while True:
            pass
    elif kind == "hold":
        np.ones(int(argument) * MEBIBYTE, np.uint8)
    elif kind == "hoard":
        hoard = []
        while True:
            hoard.append(bytearray(MEBIBYTE))
    elif kind == "segfault":
        ctypes.string_at(0)
    elif kind == "abort":
        os.abort()
    elif kind == "exit":
        os._exit(0)
    elif kind == "kill-once":
        if not Path(argument).exists():
            Path(argument).touch()
            os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "leak":
        _LEAKED.append(np.ones(int(argument) * MEBIBYTE, np.uint8))
    elif kind == "print":
        for stream in (1, 2):
            os.write(stream, argument.encode())
    elif kind == "refuse":
        raise ValueError(f"no {argument}")
    elif kind == "large":
        return "x" * (int(argument) * MEBIBYTE)
    return job


_LEAKED: list[np.ndarray] = []


def name_process(job: str) -> int:
    do(job)
    return os.getpid()
