"""What the figures of a segmenter say to the items of the model card."""

from collections.abc import Sequence

from mim.evaluation.header import Header
from mim.evaluation.metrics import Settings
from mim.evaluation.section import Section
from mim.evaluation.segmentation import FOUND, RULES, EmptyTruth
from mim.evaluation.segmentation_classes import SegmentedClasses
from mim.evaluation.threshold import Threshold


def facts_of_segmentation(
    images: SegmentedClasses,
    thresholds: Sequence[Threshold],
    section: Section,
    settings: Settings,
    header: Header,
    warnings: Sequence[str],
    empty_truth: EmptyTruth = "skip",
) -> dict[str, str]:
    """What is known, by the keys of `mim.evaluation.model_card`.

    Args:
        images: Validation and test images.
        thresholds: The probability from which a pixel was drawn, a class each.
        section: What `segmentation_section` or `segmentation_classes_section` gave for the test images.
        settings: How intervals were made.
        header: What the figures belong to.
        warnings: What a reader must know first.
        empty_truth: The rule for images without lesions.
    """
    height, width = header.image_size
    test = images.of("test")
    every = [own for table in test.images for own in table.overlaps]
    missed = sum(lesion.covered < FOUND for own in every for lesion in own.lesions)
    false = sum(own.false_parts for own in every)
    target = header.target
    return {
        "kind": "A neural network (deep learning) that reads a film and draws the pixels of what is sought.",
        "output": f"For each pixel of a film the probability that it is one of {target}.",
        "outcome": f"{target[:1].upper()}{target[1:]}, as polygons or run lengths in the file of annotations say.",
        "predictors": "The pixels of the film alone.",
        "no_judgement": "Pixels need no judgement.",
        "resolution": f"The network meets {height} x {width} pixels (height x width); masks are measured in pixels of "
        "the whole film.",
        "hashes": f"Data {header.data}, split {header.split}, weights {header.checkpoint}, mim {header.version}.",
        "counts": f"{_counted('Test', test)}; {_counted('validation', images.of('val'))}; training: "
        f"{header.trained_on['films']} films of {header.trained_on['patients']} patients, "
        f"{header.trained_on['positives']} with a lesion.",
        "metrics": "Dice and normalised surface distance by film and by lesion; a lesion of which at least "
        f"{FOUND:.0%} is drawn is found. {RULES[empty_truth]} See metrics.json.",
        "uncertainty": f"{settings.confidence * 100:g} % intervals from {settings.bootstrap} resamples of patients "
        f"(seed {settings.seed}); the threshold is held fixed in them.",
        "performance": f"{'; '.join(section.summary)}.",
        "failures": f"{missed} lesions of the test films were not found, and {false} drawn parts touch none; "
        "report.html shows the worst.",
        "lesions": f"{header.lesions['test']} lesions are marked on the test films and {header.lesions['val']} on the "
        "validation films.",
        "caution": "Research software, not a medical device: it must not be used to diagnose or treat anyone.",
        "limits": " ".join([*warnings, *section.first_lines]),
        "start": f"From {header.more['Started from']}.",
        "choice": "The weights with the best Dice on the validation films.",
        "imbalance": "The loss holds Dice, which does not grow with the number of pixels without a lesion.",
        **_of_classes(images.classes, thresholds),
        **_of_groups(section),
    }


def _of_classes(classes: Sequence[str], thresholds: Sequence[Threshold]) -> dict[str, str]:
    """What depends on how many classes there are: what comes out, and the thresholds that could be chosen."""
    several, names = len(classes) > 1, ", ".join(classes)
    facts = {}
    if several:
        facts["output"] = f"For each pixel of a film the probability of each class (it may be of several): {names}."
    named = [(name, one.value) for name, one in zip(classes, thresholds, strict=True) if one.value is not None]
    if named:
        drawn = "; ".join(f"{value:g}{f' ({name})' if several else ''}" for name, value in named)
        facts["threshold"] = f"A pixel is drawn from a probability of {drawn}, chosen on the validation films."
    return facts


def _of_groups(section: Section) -> dict[str, str]:
    captions = [table.caption for table in section.tables if "worst first" in table.caption]
    return {"subgroups": f"{'; '.join(captions)} (report.html has it all)."} if captions else {}


def _counted(name: str, images: SegmentedClasses) -> str:
    lesions = sum(len(own.lesions) for table in images.images for own in table.overlaps)
    patients = len(set(images.patient_id))
    return f"{name}: {len(images)} films of {patients} patients with {lesions} lesions"
