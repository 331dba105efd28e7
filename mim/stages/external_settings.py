"""How an external test set is read: as the run's films were, but for what its files and columns are called."""

from pathlib import Path

from mim.config import EvaluateConfig, ExternalDataConfig, FinetuneConfig, LabelledDataConfig
from mim.data import PreparedDataset
from mim.errors import MimError
from mim.stages.classifier import TaskDescription
from mim.stages.made_for import MadeFor, preparation_of

ANNOTATED = ("detect", "segment")
"""Tasks that learn from `data.boxes`, not from a label column."""
FILES = ("labels", "boxes", "crops")


def check_external(config: EvaluateConfig) -> None:
    """Refuses settings of an external test set where there is none, and what it cannot go with.

    Raises:
        MimError: naming the setting.
    """
    if config.data.path is None:
        for key in ExternalDataConfig.model_fields:
            if getattr(config.data, key) is not None:
                raise MimError(
                    f"data.{key} is of an external test set, and there is none; give --data FOLDER, too. The run's own "
                    "films are read as in training, from where data_path says that they are now"
                )
        return
    if not config.data.path:
        raise MimError("data.path is empty: give --data FOLDER, the folder of the external test set")
    if config.second_run is not None:
        raise MimError(
            "two runs are compared on their own test films, not on an external test set; measure each by itself: "
            f"evaluate.py RUN --data {config.data.path}"
        )
    if config.output is not None and (Path(config.output) / "config.yaml").exists():
        raise MimError(
            f"{config.output}: is a run, whose own report that of an external test set would replace; give "
            "output=<another folder>, or leave it out"
        )


def external_settings(
    asked: ExternalDataConfig, run: Path, finetuned: FinetuneConfig, description: TaskDescription
) -> LabelledDataConfig:
    """Settings to read the external films with.

    Raises:
        MimError: a setting that the run does not read, or a file of the run's own that would be taken.
    """
    own = finetuned.data
    _refuse_unread(asked, finetuned)
    given = {key: value for key, value in asked.model_dump(exclude={"split"}).items() if value is not None}
    for key in FILES:
        name = getattr(own, key)
        if key not in given and name is not None and _is_the_same(Path(own.path), Path(str(asked.path)), name):
            raise MimError(
                f"data.{key}: the run's is {name}, which is not of {asked.path}; give data.{key}=<that of these films>"
            )
    if "target" in given:
        _check_target(given["target"], own, description)
    preparation = preparation_of(run, finetuned, MadeFor.load(run), ("unknown",))
    return own.model_copy(update={**preparation, **given})


def check_prepared_alike(films: PreparedDataset, settings: LabelledDataConfig) -> None:
    """Refuses a prepared dataset whose films are stored in another way than the run's.

    Raises:
        MimError: naming what differs.
    """
    made_with = films.report["options"]
    for name in ("long_side", "bits", "voi", "color", "crop", "tile", "tile_overlap"):
        wanted = getattr(settings, name)
        if made_with.get(name, wanted) != wanted:
            raise MimError(
                f"{films.path}: was prepared with {name} {made_with[name]}, the films of the run with {wanted}; give "
                "the folder of the films themselves, which is then prepared as the run's was"
            )


def _refuse_unread(asked: ExternalDataConfig, finetuned: FinetuneConfig) -> None:
    own = finetuned.data
    if asked.target is not None and (finetuned.task in ANNOTATED or own.target is None):
        raise MimError(f"data.target: the run has no label column (task={finetuned.task}); leave it out")
    if asked.crops is not None and own.crops is None:
        raise MimError("data.crops: the run was trained on whole films, not on teeth; leave it out")
    if asked.boxes is None and own.boxes is None:
        for key in ("lesion_categories", "grades"):
            if getattr(asked, key) is not None:
                raise MimError(f"data.{key} is of data.boxes, and neither the run nor you name such a file; give both")


def _check_target(target: str | tuple[str, ...], own: LabelledDataConfig, description: TaskDescription) -> None:
    count = 1 if isinstance(own.target, str) else len(description.classes)
    if isinstance(target, str) != isinstance(own.target, str) or (not isinstance(target, str) and len(target) != count):
        wanted = "one column" if count == 1 else f"{count} columns, in the order of {', '.join(description.classes)}"
        raise MimError(f"data.target: the run was trained on {wanted}; give as many")


def _is_the_same(own: Path, given: Path, name: str) -> bool:
    """Whether a name means one file in two folders, as it does where it is absolute."""
    return own.resolve() != given.resolve() and (own / name).resolve() == (given / name).resolve()
