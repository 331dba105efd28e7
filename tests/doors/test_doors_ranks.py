import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from door_calls import NETWORK, PATIENCE, ROOT, environment, losses, read_metrics, succeed

STEPS = 8


def torchrun(script: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    line += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", str(script), *map(str, arguments)]
    return subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=PATIENCE)


def test_two_ranks_train_as_one_with_twice_the_batch(unlabelled: tuple[str, ...], tmp_path: Path) -> None:
    settings = (*unlabelled, f"training.max_steps={STEPS}", "watch.looks=12")
    done = torchrun(ROOT / "train.py", *settings, "training.batch_size=3", f"output={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr
    succeed("train", *settings, "training.batch_size=6", f"output={tmp_path / 'one'}")

    two, one = losses(tmp_path / "two"), losses(tmp_path / "one")
    assert len(two) == len(one) == STEPS
    np.testing.assert_allclose(two, one, rtol=0, atol=1e-5)
    assert len(set(one)) == STEPS
    assert done.stdout.count("use it: init=") == 1, "only the first rank speaks"
    names = ["encoder.json", "encoder.safetensors", "finished.json", "seen.csv"]
    assert all((tmp_path / "two" / name).is_file() for name in names)
    assert (tmp_path / "two" / "seen.csv").read_bytes() == (tmp_path / "one" / "seen.csv").read_bytes()


def test_two_ranks_train_a_sparse_cnn_and_a_learned_masker(
    unlabelled: tuple[str, ...], labelled: tuple[str, ...], pretrained: Path, tmp_path: Path
) -> None:
    brief = tuple(setting for setting in unlabelled if setting not in NETWORK and not setting.startswith("data.path"))
    resnet = (
        "encoder.name=resnet18",
        "encoder.timm_args={layers: [1, 1, 1, 1]}",
        "input.image_size=[64,64]",
        "decoder={width: 48, depth: 1}",
    )
    films = next(setting for setting in unlabelled if setting.startswith("data.path"))
    tuning = tuple(setting for setting in brief if not setting.startswith("decoder"))
    lines = [
        ["train", *brief, films, *resnet, f"output={tmp_path / 'sparse'}"],
        ["finetune", *tuning, *labelled, f"init={pretrained}", "training.max_steps=6", f"output={tmp_path / 'masker'}"],
    ]
    done = torchrun(Path(__file__).with_name("several_doors.py"), json.dumps(lines))
    assert done.returncode == 0, done.stderr
    assert len(losses(tmp_path / "sparse")) == 3
    assert len(losses(tmp_path / "masker")) == 6
    assert all("val/auroc" in record for record in read_metrics(tmp_path / "masker") if "train/loss" not in record)
    assert (tmp_path / "masker" / "finished.json").is_file()
