import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from process_jobs import do, name_process

from mim.data.processes import Limits, map_in_processes

LIMITS = Limits(seconds=2.0, memory=64 << 20)
BAD = {
    "sleep:60": "timeout",
    "spin": "timeout",
    "hold:100": "out-of-memory",
    "hoard": "out-of-memory",
    "segfault": "crashed",
    "abort": "crashed",
    "exit": "crashed",
}


def run(jobs: list[str], *, workers: int = 2, limits: Limits | None = LIMITS) -> list[str]:
    results = map_in_processes(do, jobs, workers=workers, limits=limits, failed=lambda job, failure: f"{job} {failure}")
    return list(results)


@pytest.mark.parametrize("workers", [1, 3])
def test_each_bad_item_costs_itself_whatever_stands_around_it(workers: int) -> None:
    jobs = []
    for number, bad in enumerate(BAD):
        jobs += [f"good:{number}", bad, f"sleep:0.0{number}", f"late:{number}"]
    jobs += ["exit", "exit", "abort", "good:last"]
    expected = [f"{job} {BAD[job]}" if job in BAD else job for job in jobs]
    started = time.monotonic()
    assert run(jobs, workers=workers) == expected
    assert time.monotonic() - started < 50, "the sleeper was not waited for"


def test_an_item_is_charged_with_its_own_time_only() -> None:
    jobs = ["sleep:0.25"] * 12  # more than the limit for any process together
    assert run(jobs) == jobs


def test_a_slow_consumer_is_nobodys_timeout() -> None:
    results = map_in_processes(do, ["sleep:0.1"] * 3, workers=2, limits=Limits(seconds=1.0), failed=lambda *_: "failed")
    for result in results:
        time.sleep(1.3)
        assert result == "sleep:0.1"


def test_memory_that_earlier_items_left_behind_is_not_charged() -> None:
    jobs = ["leak:25", "leak:25", "hold:30", "leak:37", "hold:37", "hold:50"]
    assert run(jobs, workers=1) == jobs


def test_what_libraries_print_does_not_reach_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["print:name of a patient", "abort"]) == ["print:name of a patient", "abort crashed"]
    assert capfd.readouterr() == ("", "")


def test_a_process_killed_from_outside_costs_nothing(tmp_path: Path) -> None:
    jobs = ["good:1", f"kill-once:{tmp_path / 'killed'}", "good:2"]
    assert run(jobs, workers=1) == jobs


def test_without_limits_an_item_may_take_what_it_needs() -> None:
    assert run(["hold:100", "sleep:2.3"], limits=None) == ["hold:100", "sleep:2.3"]


def test_results_larger_than_a_pipe_come_whole_and_in_order() -> None:
    sizes = [len(result) >> 20 for result in run([f"large:{size}" for size in (9, 1, 5, 0, 3)])]
    assert sizes == [9, 1, 5, 0, 3]


def test_what_the_work_raises_is_raised_in_its_turn() -> None:
    results = map_in_processes(do, ["sleep:0.3", "refuse:2", "good"], workers=2, failed=lambda *_: "failed")
    assert next(results) == "sleep:0.3"
    with pytest.raises(ValueError, match="no 2"):
        next(results)


def test_items_are_taken_as_they_are_needed() -> None:
    taken = 0

    def items() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "good"

    results = map_in_processes(do, items(), workers=2, failed=lambda *_: "failed")
    for _ in range(10):
        next(results)
    assert taken < 30


def test_no_process_outlives_its_work() -> None:
    results = map_in_processes(name_process, ["good"] * 20 + ["spin"], workers=2, failed=lambda *_: 0)
    pids = {next(results) for _ in range(20)}
    results.close()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert pids
    assert os.getpid() not in pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
