"""What a run of fine-tuning says of itself, for the model card: no paths, no names."""

from importlib.metadata import version
from platform import python_version

from mim.config import FinetuneConfig
from mim.stages.classifier import TaskDescription
from mim.stages.near_copies import CopiesMet

PACKAGES = ("mim", "torch", "timm", "monai", "lightning-fabric", "numpy", "scikit-learn", "pydicom")


def facts_of_run(finetuned: FinetuneConfig, description: TaskDescription, met: CopiesMet) -> dict[str, str]:
    """Settings of a run in words, by the keys of the items of the checklists."""
    data, training, optimizer = finetuned.data, finetuned.training, finetuned.optimizer
    height, width = description.encoder.image_size
    share = "" if data.label_fraction >= 1 else f" Only {data.label_fraction:g} of the training patients were used."
    limit = "" if data.train_limit is None else f" At most {data.train_limit} training films were used."
    drawn = "patients" if data.split_by == "patient" else f"whole units of {data.split_by}"
    weights = "weighed by its inverse frequency" if finetuned.class_weights else "not weighed"
    return {
        "selection_of_films": f"Films with a label that could be read.{share}{limit}",
        "preprocessing": f"Decoded as the file says it is to be shown; the longer side reduced to {data.long_side} "
        f"pixels and stored with {data.bits} bits; cropping: {data.crop}; resized to {height} x {width} pixels; "
        f"normalised by mean {description.mean:g} and deviation {description.std:g}.",
        "deidentification": "Ids of patients and films are salted hashes; names, dates and other header data are not "
        "kept.",
        "missing_data": "Films without a label are left out, and so are files that cannot be read and films without a "
        "finite score; each is counted.",
        "data": "Films that the run's table of labels names.",
        "partition": "The table's column of splits where it has one; else drawn by "
        f"{drawn}, seed {data.split_seed}, {data.val_fraction:g} for validation and {data.test_fraction:g} for the "
        f"test{'' if data.folds is None else f', fold {data.fold} of {data.folds}'}.",
        "apart": "No patient is in two of training, validation and test.",
        "leakage": f"Near copies of test films: {met.describe()}. Test films that pretraining met, or of whose "
        f"patients it met others: {description.met_in_pretraining}.",
        "model": f"Backbone {description.encoder.name}, hidden cells: {description.encoder.hidden}; input masker: "
        f"{finetuned.masker.kind}"
        + (f", keeps {finetuned.masker.keep:g} of the cells" if finetuned.masker.kind == "learned" else "")
        + f"; a head of {len(description.classes)} classes over what is visible.",
        "software": f"Python {python_version()}, {', '.join(f'{name} {version(name)}' for name in PACKAGES)}, when it "
        "was evaluated.",
        "training": f"AdamW, learning rate {optimizer.lr:g}, layer decay {optimizer.layer_decay:g}, weight decay "
        f"{optimizer.weight_decay:g}, {training.epochs} epochs of batches of {training.batch_size}, "
        f"{training.precision}, label smoothing {finetuned.smoothing:g}, seed {finetuned.seed}.",
        "augmentation": f"Random changes in training: {_words(finetuned.augment.model_dump())}.",
        "choice": "The weights with the best AUROC on the validation films.",
        "ensemble": "None: one network.",
        "imbalance": f"In the loss each class is {weights}; the threshold is chosen on the validation films, and "
        "calibration is measured.",
        "internal": "The test films are named by the same table of labels as the training films, of other patients.",
        "availability": f"The software is mim {version('mim')}, Apache-2.0.",
    }


def _words(settings: dict[str, object]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items())
