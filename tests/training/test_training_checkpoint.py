import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from tiny_run import TinyTask
from torch import nn

from mim.errors import MimError
from mim.files import write_atomically
from mim.training import Best, load_weights, save_weights
from mim.training.checkpoint import CheckpointStore, check_fingerprint
from mim.training.metrics_file import MetricsFile
from mim.training.weights import is_better, read_best, save_best


def state(step: int) -> dict[str, object]:
    return {"step": step, "task": {"weight": torch.full((1000,), float(step))}}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of its own of two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount command")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path, leave: int) -> None:
    (disk / "filler").write_bytes(bytes(max(shutil.disk_usage(disk).free - leave, 0)))


def test_the_last_few_are_kept_and_come_back(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    assert store.newest() is None
    for step in (10, 20, 30):
        store.save(state(step))
    assert names(tmp_path) == ["step-00000020.pt", "step-00000030.pt"]
    path = store.newest()
    assert path == tmp_path / "step-00000030.pt"
    assert torch.equal(store.load(path)["task"]["weight"], torch.full((1000,), 30.0))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_newest_one_is_passed_over(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    for step in (10, 20):
        newest = store.save(state(step))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(
        {"cut": content[: len(content) // 2], "flipped": content, "empty": b"", "other": b"text" * 99}[damage]
    )
    assert store.newest() == tmp_path / "step-00000010.pt"
    assert "step-00000020.pt is not whole" in caplog.text
    assert store.describe_newest() == "the checkpoint of step 10 is intact"
    store.save(state(15))
    assert names(tmp_path) == ["step-00000010.pt", "step-00000015.pt"]


def test_no_whole_one_is_an_error_and_not_a_fresh_start(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    for step in (10, 20):
        store.save(state(step)).write_bytes(b"PK")
    with pytest.raises(MimError, match="none of its 2 checkpoints is whole"):
        store.newest()


def test_what_is_no_checkpoint_of_ours_is_refused(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    path = tmp_path / "step-00000001.pt"
    torch.save({"step": 1}, path)
    with pytest.raises(MimError, match="another version"):
        store.load(path)
    torch.save(TinyTask(), path)
    with pytest.raises(MimError, match="not a checkpoint of mim"):
        store.load(path)
    with pytest.raises(MimError, match="cannot be read"):
        store.load(tmp_path / "step-00000002.pt")


def test_a_full_disk_leaves_the_last_checkpoint_and_nothing_else(small_disk: Path) -> None:
    store = CheckpointStore(small_disk, keep=1)
    big = {"task": {"weight": torch.rand(200_000)}}
    first = store.save({"step": 7, **big})
    fill(small_disk, leave=200_000)
    with pytest.raises(MimError) as error:
        store.save({"step": 9, **big})
    message = str(error.value)
    assert "\n" not in message
    for words in (str(small_disk), "checkpoint of step 9", "disk is full", "checkpoint of step 7 is intact"):
        assert words in message
    assert names(small_disk) == ["filler", "step-00000007.pt"]
    assert store.newest() == first
    with pytest.raises(MimError, match=r"model\.safetensors: could not be written, the disk is full"):
        save_weights(small_disk / "model.safetensors", nn.Linear(500, 500))
    assert names(small_disk) == ["filler", "step-00000007.pt"]


def test_a_full_disk_stops_the_figures_with_one_line(small_disk: Path) -> None:
    metrics = MetricsFile(small_disk / "metrics.jsonl", 0, 0)
    metrics.write(1, 1, {"loss": 1.0})
    fill(small_disk, leave=0)
    with pytest.raises(MimError, match=r"metrics\.jsonl: could not be written, the disk is full"):
        metrics.write(2, 1, {"x" * 9000: 1.0})
    metrics.close()
    (small_disk / "filler").unlink()
    assert MetricsFile(small_disk / "metrics.jsonl", 1, 1).lines == 1


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def stopped(file) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, stopped)
    assert path.read_text() == "before"
    assert names(tmp_path) == ["file"]


def test_what_a_run_was_begun_with_is_named_when_it_differs(tmp_path: Path) -> None:
    check_fingerprint(tmp_path, {"config": "a", "split": "b"}, {"split": "b", "config": "a"})
    for given in ({"config": "a", "split": "c"}, {"config": "a"}):
        with pytest.raises(MimError, match="begun with split b"):
            check_fingerprint(tmp_path, {"config": "a", "split": "b"}, given)


def test_weights_come_back_with_tied_tensors(tmp_path: Path) -> None:
    module = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4), "norm": nn.BatchNorm1d(4)})
    module["b"].weight = module["a"].weight
    save_weights(tmp_path / "w.safetensors", module)
    weights = load_weights(tmp_path / "w.safetensors")
    assert weights.keys() == module.state_dict().keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in module.state_dict().items())
    with pytest.raises(MimError, match="is not there"):
        load_weights(tmp_path / "x.safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"cut")
    with pytest.raises(MimError, match="not a whole safetensors file"):
        load_weights(tmp_path / "w.safetensors")


def test_best_is_the_first_of_equals_and_never_nan(tmp_path: Path) -> None:
    assert is_better(0.5, None, "max")
    assert is_better(0.6, Best(0.5, 1), "max")
    assert not is_better(0.6, Best(0.5, 1), "min")
    assert not is_better(0.5, Best(0.5, 1), "max")
    assert not is_better(0.5, Best(0.5, 1), "min")
    assert not any(is_better(value, None, "max") for value in (float("nan"), float("inf")))
    path = tmp_path / "best.safetensors"
    assert read_best(path) is None
    save_best(path, nn.Linear(2, 2), Best(0.1 + 0.2, 40))
    assert read_best(path) == Best(0.1 + 0.2, 40)
