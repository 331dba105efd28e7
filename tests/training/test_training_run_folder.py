import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mim.errors import MimError
from mim.training import RunFolder, open_run

CONFIG = (
    "seed: 0\noutput: null\noptimizer:\n  lr: 0.001\ntraining:\n  epochs: 5\n  workers: 2\ntracking:\n  wandb: off\n"
)


def test_a_new_folder_and_the_same_one_again(tmp_path: Path, fabric) -> None:
    path = tmp_path / "runs" / "a"
    with open_run(fabric, path, CONFIG) as folder:
        assert folder.config.read_text() == CONFIG
        assert folder.checkpoints.is_dir()
        assert folder.pictures.is_dir()
    with open_run(fabric, path, CONFIG) as folder:
        assert folder.read_finished() is None
        folder.mark_finished({"steps": 3, "figures": {"val/auroc": 0.75}})
    assert RunFolder(path).read_finished() == {"steps": 3, "figures": {"val/auroc": 0.75}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("lr: 0.001", "lr: 0.002"), "optimizer.lr is 0.001 in this run and 0.002 now"),
        (("seed: 0\n", ""), "seed is 0 in this run and not given now"),
        (("epochs: 5", "epochs: 5\n  extra: [1, 2]"), "training.extra is not given in this run and [1, 2] now"),
    ],
)
def test_another_configuration_is_refused(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    first = RunFolder(tmp_path)
    first.claim(CONFIG)
    first.release()
    with pytest.raises(MimError) as error:
        RunFolder(tmp_path).claim(CONFIG.replace(*change))
    assert words in str(error.value)
    assert "output=another folder" in str(error.value)
    assert "\n" not in str(error.value)
    assert first.config.read_text() == CONFIG


def test_what_changes_no_weight_may_change(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.claim(CONFIG)
    folder.release()
    changed = CONFIG.replace("workers: 2", "workers: 8").replace("wandb: off", "wandb: online")
    folder.claim(changed.replace("output: null", "output: here"))
    assert "workers: 8" in folder.config.read_text()


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".hidden").touch()
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(MimError, match=r"is not a run \(it has thesis\.tex"):
        RunFolder(tmp_path).claim(CONFIG)
    with pytest.raises(MimError, match="is a file"):
        RunFolder(tmp_path / "thesis.tex").claim(CONFIG)
    with pytest.raises(MimError, match="cannot be written"):
        RunFolder(tmp_path / "thesis.tex" / "run").claim(CONFIG)
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(MimError, match="not YAML"):
        RunFolder(tmp_path).claim(CONFIG)


def in_another_process(work: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    def claim() -> None:
        with pytest.raises(MimError, match="another process is writing to it"):
            RunFolder(tmp_path / "run").claim(CONFIG)

    folder = RunFolder(tmp_path / "run")
    folder.claim(CONFIG)
    assert in_another_process(claim) == 0
    folder.release()
    assert in_another_process(lambda: RunFolder(tmp_path / "run").claim(CONFIG)) == 0


def test_a_killed_run_lets_go_even_if_a_child_outlives_it(tmp_path: Path) -> None:
    reader, writer = os.pipe()

    def claim_fork_and_die() -> None:
        folder = RunFolder(tmp_path / "run")
        folder.claim(CONFIG)
        if os.fork() == 0:
            os.write(writer, b"here")
            time.sleep(2)
            os._exit(0)
        os.read(reader, 4)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_another_process(claim_fork_and_die) == -signal.SIGKILL
    began = time.monotonic()
    RunFolder(tmp_path / "run").claim(CONFIG)
    assert time.monotonic() - began < 1
