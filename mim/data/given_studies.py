"""Files that somebody names, grouped into studies: nothing of what tells them apart is kept."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mim.data.build import FILE_LIMITS
from mim.data.dicom_file import open_dicom
from mim.data.given_files import GivenFile
from mim.data.matching import FileFinder
from mim.data.processes import Failure, available_cores, map_in_processes
from mim.data.radiograph import UnreadableRadiograph, file_format
from mim.data.tables import read_table
from mim.errors import MimError

_StudyKey = tuple[str, str]  # patient and study, as the header has them


@dataclass(frozen=True, slots=True)
class GivenStudy:
    """The files of one study.

    Attributes:
        files: In the order in which they were given.
        order: Place of each file in its study where a table says so; None = the header's Instance Number, then the
            name.
    """

    files: tuple[GivenFile, ...]
    order: tuple[int | None, ...]


def group_given(
    files: Sequence[GivenFile], table: Path | None = None, *, folders: Sequence[Path] = (), workers: int | None = None
) -> tuple[list[GivenStudy], list[GivenFile]]:
    """Group files into studies.

    With a table a study is what stands under its `study_id`. Without one, DICOM files are of one study that have the
    same Study Instance UID and Patient ID, and any other files that lie in one folder.

    Args:
        files: What to group.
        table: A CSV with columns `image`, `study_id` and, optionally, `series_order`; `image` is a path relative to the
            CSV's folder or to one of `folders`, an absolute path, or a file name that only one file has.
        folders: Folders that were given.
        workers: Processes that read headers; None = as many as there are cores.

    Returns:
        Studies in the order of their first files, and the files that the table does not name.

    Raises:
        MimError: The table cannot be read, lacks a column, names none of the files, or says two things of one.
    """
    written = None if table is None else _of_table(files, table, folders)
    keys = _of_headers(files, workers) if written is None else {}
    groups: dict[Hashable, list[tuple[GivenFile, int | None]]] = defaultdict(list)
    unnamed = []
    for file in files:
        if written is None:
            groups[keys.get(file.path) or file.path.parent].append((file, None))
        elif file.path in written:
            study, order = written[file.path]
            groups[study].append((file, order))
        else:
            unnamed.append(file)
    studies = [
        GivenStudy(tuple(file for file, _ in group), tuple(order for _, order in group)) for group in groups.values()
    ]
    return studies, unnamed


def _of_headers(files: Sequence[GivenFile], workers: int | None) -> dict[Path, _StudyKey | None]:
    """What the headers of DICOM files say; None of a file that says nothing, or is none."""
    if not files:
        return {}
    found = map_in_processes(
        _read_key,
        [str(file.path) for file in files],
        workers=max(1, min(workers or available_cores(), len(files))),
        failed=_failed,
        limits=FILE_LIMITS,
        preload=["mim.data.given_studies"],
    )
    return {file.path: key for file, key in zip(files, found, strict=True)}


def _read_key(path: str) -> _StudyKey | None:
    try:
        if file_format(path) != "dicom":
            return None
        with open_dicom(Path(path)) as opened:
            study = opened.header.text("StudyInstanceUID")
            return None if study is None else (opened.header.text("PatientID") or "", study)
    except UnreadableRadiograph:  # reading it as a film tells why, and lists it
        return None


def _failed(path: str, failure: Failure) -> _StudyKey | None:
    return None


def _of_table(files: Sequence[GivenFile], path: Path, folders: Sequence[Path]) -> Mapping[Path, tuple[str, int | None]]:
    table = read_table(path)
    for column in ("image", "study_id"):
        table.require(column, "--studies")
    by_image = {file.path.as_posix().lstrip("/"): file.path for file in files}
    finder = FileFinder(by_image, [Path("/")], path)
    found: dict[Path, tuple[str, int | None]] = {}
    for row in table.rows:
        names = [row.cells["image"], *((folder.absolute() / row.cells["image"]).as_posix() for folder in folders)]
        image = next((image for name in names if name and (image := finder.find(name)) is not None), None)
        if image is None:
            continue
        if not row.cells["study_id"]:
            raise MimError(f"{path}, row {row.line}: the cell under 'study_id' is empty")
        told = (row.cells["study_id"], _order(path, row.line, row.cells.get("series_order", "")))
        if found.setdefault(by_image[image], told) != told:
            raise MimError(f"{path}, row {row.line}: names a file that another row gives another study or place")
    if not found:
        raise MimError(f"{path}: names none of the {len(files)} files that were given (column image)")
    return found


def _order(path: Path, line: int, written: str) -> int | None:
    try:
        return int(written) if written else None
    except ValueError:
        raise MimError(f"{path}, row {line}: what stands under 'series_order' is no whole number") from None
