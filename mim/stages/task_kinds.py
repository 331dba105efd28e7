"""What can be fine-tuned and measured: for each `task` of the settings a function that trains it and one that measures.

Another kind of task is another entry, made of functions of a module of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from torch import Tensor, nn

from mim.config import EvaluateConfig, FaithfulnessConfig, FinetuneConfig, LabelledDataConfig, LoraConfig
from mim.data import is_prepared
from mim.errors import MimError
from mim.stages.classifier import TaskDescription, rebuild_classifier
from mim.stages.common import require_writable
from mim.stages.compare_runs import compare_runs, require_free
from mim.stages.detection import finetune_detector, rebuild_detector
from mim.stages.evaluate import evaluate as evaluate_films
from mim.stages.evaluate import open_finished
from mim.stages.evaluate_detection import evaluate_detector
from mim.stages.evaluate_labels import evaluate_labels
from mim.stages.evaluate_segmentation import evaluate_segmenter
from mim.stages.evaluate_study import evaluate_studies
from mim.stages.external_settings import check_external
from mim.stages.finetune import finetune as finetune_films
from mim.stages.label_kinds import label_kind, label_words, task_labels
from mim.stages.segmentation import finetune_segmenter, rebuild_segmenter
from mim.stages.study import finetune_studies, rebuild_study_classifier


@dataclass(frozen=True)
class TaskKind:
    """How one kind of task is trained and measured.

    Attributes:
        finetune: trains and gives the folder of the run.
        evaluate: measures a run and gives the folder of the report.
        rebuild: builds the task of a run as it was trained, for weights that are given but not yet loaded.
        blocks: top-level blocks of settings that only this kind reads.
        data: keys of `data` that only this kind reads.
    """

    finetune: Callable[[FinetuneConfig], Path]
    evaluate: Callable[[EvaluateConfig], Path]
    rebuild: Callable[[Path, FinetuneConfig, TaskDescription, Mapping[str, Tensor]], nn.Module]
    blocks: tuple[str, ...] = ()
    data: tuple[str, ...] = ()


TASK_KINDS: Mapping[str, TaskKind] = MappingProxyType(
    {
        "classify": TaskKind(
            finetune_films,
            evaluate_films,
            rebuild_classifier,
            data=("label_kind", "label_order", "crops", "crop_margin"),
        ),
        "study": TaskKind(
            finetune_studies, evaluate_studies, rebuild_study_classifier, ("study",), ("study_label", "max_films")
        ),
        "detect": TaskKind(finetune_detector, evaluate_detector, rebuild_detector, ("detect",)),
        "segment": TaskKind(finetune_segmenter, evaluate_segmenter, rebuild_segmenter, ("segment",)),
    }
)

_OF_CLASSIFICATION = ("loss", "focal_gamma", "sampling")
_UNREAD_OF: Mapping[str, tuple[str, ...]] = MappingProxyType({"detect": ("specificity",), "segment": ("specificity",)})


def finetune(config: FinetuneConfig) -> Path:
    """Trains what `task` says.

    Returns:
        The folder of the run.

    Raises:
        MimError: bad settings, data or files, in one line.
        Interrupted: the run was asked to stop and saved itself.
    """
    check_settings(config)
    check_tables(config)
    return TASK_KINDS[config.task].finetune(config)


def evaluate(config: EvaluateConfig) -> Path:
    """Measures a run by what it was trained for, or compares two.

    Returns:
        The folder of the report.

    Raises:
        MimError: the run is not finished, its data changed, two runs cannot be compared, or an external test set cannot
            be used, in one line.
    """
    check_external(config)
    if config.second_run is not None:
        return compare_runs(config, evaluate)
    _, finetuned, description = open_finished(config)
    if finetuned.task != "segment" and config.segmentation != EvaluateConfig().segmentation:
        raise MimError(f"segmentation is read only of runs with task=segment, and this run has task={finetuned.task}")
    refuse_unread(config, finetuned.task)
    if config.output is not None and Path(config.output).resolve() != Path(config.run).resolve():
        require_free(Path(config.output))
    require_writable(Path(config.output or config.run))
    if finetuned.task != "classify":
        refuse_blocks(config, f"task={finetuned.task}")
    elif (kind := label_kind(finetuned, description.classes)) != "two":
        words = label_words(kind, description.classes)
        refuse_blocks(config, words)
        return evaluate_labels(config)
    return TASK_KINDS[finetuned.task].evaluate(config)


def check_tables(config: FinetuneConfig) -> None:
    """Refuses tables that are not there before films are prepared, which may take hours.

    A prepared dataset is quickly opened, and its tables may lie in the folder that it was made from.

    Raises:
        MimError: naming the file and the key.
    """
    source = Path(config.data.path)
    if not config.data.path or not source.is_dir() or is_prepared(source):
        return
    for key in ("labels", "boxes", "crops"):
        name = getattr(config.data, key)
        if name is not None and not (source / name).is_file():
            raise MimError(f"{source / name}: there is no such file (data.{key} is relative to data.path)")


def refuse_unread(config: EvaluateConfig, task: str) -> None:
    """Refuses settings that the evaluation of a kind of task would not read.

    Raises:
        MimError: naming the setting.
    """
    for key in _UNREAD_OF.get(task, ()):
        if getattr(config, key) != EvaluateConfig.model_fields[key].default:
            raise MimError(f"{key} is not read of a run with task={task}; leave it out")


def refuse_blocks(config: EvaluateConfig, has: str) -> None:
    """Refuses to be asked for blocks of the report that only a classifier of films into two classes has.

    Raises:
        MimError: naming the block.
    """
    asked = {"missingness": config.missingness, "explanations": config.explanations}
    if config.faithfulness.enabled:  # to leave it out is no request
        drawn = FaithfulnessConfig().random_masks  # read wherever a masker hides something of lesions
        asked["faithfulness"] = config.faithfulness.model_copy(update={"random_masks": drawn})
    for name, settings in asked.items():
        if settings != type(settings)():
            raise MimError(
                f"{name} is measured only of runs with task=classify and two classes, and this run has {has}"
            )


def check_settings(config: FinetuneConfig) -> None:
    """Refuses settings that the kind of task would not read.

    Raises:
        MimError: naming the first of them.
    """
    for key in _OF_CLASSIFICATION if config.task != "classify" else ():
        if getattr(config, key) != FinetuneConfig.model_fields[key].default:
            raise MimError(f"{key} is read only with task=classify, and task is {config.task}")
    if config.loss != "focal" and config.focal_gamma != FinetuneConfig.model_fields["focal_gamma"].default:
        raise MimError(f"focal_gamma is read only with loss=focal, and loss is {config.loss}")
    if config.tuning != "last_blocks" and config.tuned_blocks != FinetuneConfig.model_fields["tuned_blocks"].default:
        raise MimError(f"tuned_blocks is read only with tuning=last_blocks, and tuning is {config.tuning}")
    for key, field in LoraConfig.model_fields.items() if config.tuning != "lora" else ():
        if getattr(config.lora, key) != field.default:
            raise MimError(f"lora.{key} is read only with tuning=lora, and tuning is {config.tuning}")
    if config.task not in ("classify", "detect") and task_labels(config) == "several":
        raise MimError(f"data.target: a list of labels is read only with task=classify, and task is {config.task}")
    for name, kind in TASK_KINDS.items():
        if name == config.task:
            continue
        for block in kind.blocks:
            given = getattr(config, block)
            for key, field in type(given).model_fields.items():
                if getattr(given, key) != field.default:
                    raise MimError(f"{block}.{key} is read only with task={name}, and task is {config.task}")
        for key in kind.data:
            if getattr(config.data, key) != LabelledDataConfig.model_fields[key].default:
                raise MimError(f"data.{key} is read only with task={name}, and task is {config.task}")
