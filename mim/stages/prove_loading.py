"""Proof, before the first step, that what pretraining leaves behind will load: in fine-tuning and in timm."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import timm
import torch
from safetensors.torch import load_file
from timm.models import get_model_args
from torch import Tensor

from mim.errors import MimError
from mim.files import reason
from mim.models import Encoder, build_encoder, export_encoder, load_encoder_weights, read_exported
from mim.tasks import MaskedClassifier, MaskedImageModel
from mim.training.validation import evaluating


def prove_encoder_loads(task: MaskedImageModel) -> None:
    """Exports the encoder as it is now, builds what fine-tuning would build from that, and compares the two.

    Rank 0 does it, on the CPU. Generators of random numbers and the task are left as they were.

    Args:
        task: that will be pretrained, on the CPU.

    Raises:
        MimError: the encoder would not load, or would not be the same.
    """
    if int(os.environ.get("RANK", "0")) != 0:
        return
    try:
        with torch.random.fork_rng(devices=[]), TemporaryDirectory(prefix="mim-") as folder:
            _prove(task, Path(folder))
    except OSError as error:
        raise MimError(
            f"the encoder cannot be tried out: no room to write it ({reason(error)}); give TMPDIR another folder"
        ) from error


@torch.no_grad()
def _prove(task: MaskedImageModel, folder: Path) -> None:
    encoder, state = task.encoder, task.encoder.backbone.state_dict()
    name = encoder.spec.name
    try:
        export_encoder(folder, encoder, state, task.mean, task.std)
        exported = read_exported(folder)
        again = build_encoder(exported.spec)
        load_encoder_weights(again, folder)
        classifier = MaskedClassifier(again, mean=exported.mean, std=exported.std).eval()
    except MimError as error:
        raise _refusal(name, str(error).replace(str(folder), "its export")) from error
    image = torch.rand(1, encoder.spec.in_chans, *encoder.image_size, generator=torch.Generator().manual_seed(0))
    with evaluating(encoder):
        _compare(name, encoder, classifier.encoder, (image - task.mean) / task.std)
    logits: Tensor = classifier({"image": image})["logits"]
    if not bool(logits.isfinite().all()):
        raise _refusal(name, "a classifier behind it gives logits that are not finite")
    plain = timm.create_model(name, **get_model_args(encoder.backbone))
    try:
        plain.load_state_dict(load_file(folder / "encoder.safetensors"), strict=True)
    except RuntimeError as error:
        raise _refusal(name, f"timm.create_model says {' '.join(str(error).split())}") from error


def _compare(name: str, encoder: Encoder, loaded: Encoder, image: Tensor) -> None:
    """Holds weights and features of two encoders against each other, to the last bit.

    Raises:
        MimError: they differ; says in what.
    """
    others = loaded.backbone.state_dict()
    for key, tensor in encoder.backbone.state_dict().items():
        if not torch.equal(tensor, others[key]):
            raise _refusal(name, f"{key} is not what it was after loading")
    expected, found = encoder(image), loaded(image)
    pairs = {"pooled": (expected.pooled, found.pooled)}
    pairs |= {f"maps[{place}]": pair for place, pair in enumerate(zip(expected.maps, found.maps, strict=True))}
    for key, (first, second) in pairs.items():
        if first.shape != second.shape:
            raise _refusal(name, f"features.{key} is {tuple(first.shape)} here and {tuple(second.shape)} after loading")
        if not torch.equal(first, second):
            difference = float((first - second).abs().max())
            raise _refusal(name, f"features.{key} differs by up to {difference:.2g} after loading")


def _refusal(name: str, what: str) -> MimError:
    return MimError(
        f"encoder {name}: would not load after pretraining: {what}; choose another encoder.name or timm_args"
    )
