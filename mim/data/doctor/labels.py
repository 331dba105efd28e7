"""What can be said of labels, splits and boxes."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mim.data.copies import copies_of
from mim.data.doctor.films import near_copies
from mim.data.doctor.findings import Finding
from mim.data.doctor.survey import Survey
from mim.data.importers.coco import read_coco
from mim.data.importers.validate import validate
from mim.data.matching import FileFinder, roots_of
from mim.data.patients import join_patients
from mim.data.privacy import salted_hash
from mim.data.tables import Table, TableRow, parse_date, parse_split, read_table
from mim.errors import MimError

_NOT_LABELS = ("image", "patient_id", "split", "site", "date", "fold")
_MOST_CLASSES = 10
_FEWEST_PATIENTS = 10
_ORDER = {"train": 0, "val": 1, "test": 2}


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table of labels joined to the films.

    Attributes:
        table: The table.
        row_of: Row of each film that has one, by file.
        missing: Rows whose film is not there.
        differing: Pairs of rows that name one film and differ.
        patient_of: Who is on each film: hashed, or the file where nobody knows.
        unknown: Films of which nobody knows who it is.
        split_of: Split of each film that has one.
    """

    table: Table
    row_of: dict[str, TableRow]
    missing: tuple[TableRow, ...]
    differing: tuple[tuple[TableRow, TableRow], ...]
    patient_of: dict[str, str]
    unknown: tuple[str, ...]
    split_of: dict[str, str]


def read_sheet(survey: Survey, path: Path, target: str | None = None) -> Sheet:
    """Read a table of labels and find its films.

    Raises:
        MimError: It cannot be read, has no column `image` or no target, or holds a split or date that is none.
    """
    table = read_table(path)
    table.require("image")
    if target is not None:
        table.require(target, "--target")
    decisive = {"patient_id", "split", "site", "date"} | ({target} if target else set(table.columns) - {"image"})
    images = dict.fromkeys(row.image for row in survey.rows)
    finder = FileFinder(images, roots_of(survey.path, survey.source), path)
    row_of: dict[str, TableRow] = {}
    missing: list[TableRow] = []
    differing: list[tuple[TableRow, TableRow]] = []
    split_of: dict[str, str] = {}
    for row in table.rows:
        parse_date(table, row)
        image = finder.find(row.cells["image"]) if row.cells["image"] else None
        if image is None:
            missing.append(row)
            continue
        first = row_of.setdefault(image, row)
        if any(first.cells.get(name) != row.cells.get(name) for name in decisive):
            differing.append((first, row))
        if row.cells.get("split"):
            split_of[image] = parse_split(table, row)
    in_header = {row.image: row.patient_id for row in survey.rows}
    cells = {image: row_of[image].cells.get("patient_id", "") if image in row_of else "" for image in images}
    hashed = {image: salted_hash(survey.salt or b"", cell) if cell else "" for image, cell in cells.items()}
    patient_of = join_patients(hashed, in_header)
    unknown = [image for image, patient in patient_of.items() if not patient]
    patient_of |= {image: f"file {image}" for image in unknown}
    return Sheet(table, row_of, tuple(missing), tuple(differing), patient_of, tuple(unknown), split_of)


def check_labels(survey: Survey, sheet: Sheet, target: str | None) -> Iterator[Finding]:
    """Look at rows, patients, splits, leaks and classes."""
    yield from _rows(survey, sheet, target)
    yield _patients(survey, sheet)
    yield from _splits(sheet)
    yield from _leaks(survey, sheet)
    yield from _classes(sheet, target)


def check_boxes(survey: Survey, path: Path) -> Iterator[Finding]:
    """Hold a COCO file against the films."""
    try:
        imported = read_coco(path)
    except MimError as error:
        yield Finding("stop", "boxes", str(error), "export the boxes as COCO again")
        return
    images, problems, _ = validate(imported, _SurveyedFilms(survey, path), None, unnamed_are_negative=True)
    boxes = sum(len(image.boxes) for image in images)
    if not problems:
        yield Finding("fine", "boxes", f"{boxes} boxes on {sum(bool(image.boxes) for image in images)} films")
        return
    kinds = ", ".join(f"{kind}: {count}" for kind, count in Counter(own.kind for own in problems).most_common())
    yield Finding(
        "look",
        "boxes",
        f"{boxes} boxes are sound; {len(problems)} problems ({kinds})",
        "python -m mim.data.import_labels lists them, and leaves them out with --problems drop",
        tuple(f"{own.kind}: entry {own.place.row}, {own.detail}" for own in problems),
    )


class _SurveyedFilms:
    """The films of a survey, found by the names that annotations give them."""

    def __init__(self, survey: Survey, annotations: Path) -> None:
        self._sizes = {row.image: (row.width, row.height) for row in survey.rows}
        self._finder = FileFinder(self._sizes, roots_of(survey.path, survey.source), annotations)
        self.names = tuple(self._sizes)

    def find(self, name: str) -> str | None:
        return self._finder.find(name) if name and "\0" not in name else None

    def size(self, image: str) -> tuple[int, int] | None:
        return self._sizes[image]


def _rows(survey: Survey, sheet: Sheet, target: str | None) -> Iterator[Finding]:
    if sheet.differing:
        stops = target is not None or any(
            first.cells.get(name) != row.cells.get(name) for first, row in sheet.differing for name in _NOT_LABELS[1:]
        )
        yield Finding(
            "stop" if stops else "look",
            "rows that differ",
            f"{len(sheet.differing)} films are in two rows that differ",
            "keep the right row of each: a run stops if the column it learns is among those that differ",
            tuple(f"rows {first.line} and {second.line}" for first, second in sheet.differing),
        )
    if sheet.missing:
        yield Finding(
            "look",
            "rows without film",
            f"{len(sheet.missing)} of {len(sheet.table.rows)} rows name no film that could be read",
            "mend the paths, or export what is missing",
            tuple(f"row {row.line}" for row in sheet.missing),
        )
    images = list(dict.fromkeys(row.image for row in survey.rows))
    without = tuple(image for image in images if image not in sheet.row_of)
    text = f"{len(sheet.row_of)} of {len(images)} files are in {sheet.table.path.name}"
    if without:
        advice = "the others count as unlabelled: they can be pretrained on"
        yield Finding("look", "labelled films", text, advice, without)
    else:
        yield Finding("fine", "labelled films", text)


def _patients(survey: Survey, sheet: Sheet) -> Finding:
    count = len(set(sheet.patient_of.values()))
    if sheet.unknown:
        return Finding(
            "look",
            "patients",
            f"{len(sheet.unknown)} of {len(sheet.patient_of)} files are of nobody known: each counts as a patient",
            "add a column patient_id: films of one patient in two splits cannot be found without it",
            sheet.unknown,
        )
    if survey.salt is None:
        text = f"{count} patients; the salt of the prepared dataset is not beside it, so headers cannot be compared"
        return Finding("look", "patients", text, "run this on the folder of films, or keep .salt beside the dataset")
    return Finding("fine", "patients", f"{count} patients on {len(sheet.patient_of)} files")


def _splits(sheet: Sheet) -> Iterator[Finding]:
    if "split" not in sheet.table.columns:
        yield Finding(
            "look",
            "splits",
            "no column split: fine-tuning will draw one, after pretraining has met the test",
            "add a column split before you pretrain",
        )
        return
    films: Counter[str] = Counter(sheet.split_of.values())
    patients = {split: {sheet.patient_of[own] for own, at in sheet.split_of.items() if at == split} for split in films}
    text = "; ".join(
        f"{split}: {films[split]} files of {len(patients[split])} patients"
        for split in sorted(films, key=_ORDER.get)  # type: ignore[arg-type]
    )
    if not films["test"] or not films["train"]:
        lacking = "test" if not films["test"] else "train"
        yield Finding("stop", "splits", f"no film is in the split {lacking} ({text})", "give some films that split")
    else:
        yield Finding("fine", "splits", text)


def _leaks(survey: Survey, sheet: Sheet) -> Iterator[Finding]:
    if not sheet.split_of:
        return
    splits: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for image, split in sheet.split_of.items():
        splits[sheet.patient_of[image]][split].append(sheet.row_of[image].line)
    torn = [own for own in splits.values() if len(own) > 1]
    if torn:
        yield Finding(
            "stop",
            "patients in two splits",
            f"{len(torn)} patients have films in more than one split",
            "move each patient as a whole",
            tuple(", ".join(f"row {min(own[split])} in {split}" for split in sorted(own)) for own in torn),
        )
    else:
        yield Finding("fine", "patients in two splits", "none")
    yield _copies_apart(sheet, [[row.image for row in films] for films in copies_of(survey.rows).values()], "exact")
    pairs = [[survey.rows[one].image, survey.rows[other].image] for one, other in near_copies(survey)]
    yield _copies_apart(sheet, pairs, "near")


def _copies_apart(sheet: Sheet, groups: Sequence[Sequence[str]], kind: str) -> Finding:
    apart = []
    for group in groups:
        rows = {sheet.split_of[image]: sheet.row_of[image].line for image in group if image in sheet.split_of}
        if len(rows) > 1:
            apart.append(", ".join(f"row {rows[split]} in {split}" for split in sorted(rows)))
    name = f"{kind} copies in two splits"
    if not apart:
        return Finding("fine", name, "none")
    advice = "keep one of each, or put both into one split (and under one patient_id)"
    return Finding("stop", name, f"{len(apart)} groups of {kind} copies are torn apart", advice, tuple(apart))


def _classes(sheet: Sheet, target: str | None) -> Iterator[Finding]:
    columns = [target] if target else [name for name in sheet.table.columns if name and name not in _NOT_LABELS]
    passed = []
    for column in columns:
        values = Counter(row.cells[column] for row in sheet.row_of.values() if row.cells[column])
        if target is None and not (1 < len(values) <= _MOST_CLASSES and len(values) * 2 <= values.total()):
            passed.append(column)
            continue
        yield _balance(sheet, column)
    if passed:
        text = f"{len(passed)} columns hold no few classes and were not looked at"
        yield Finding("fine", "other columns", text, "", tuple(passed))


def _balance(sheet: Sheet, column: str) -> Finding:
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    films: Counter[tuple[str, str]] = Counter()
    for image, row in sheet.row_of.items():
        if row.cells[column]:
            split = sheet.split_of.get(image, "all")
            found[split][row.cells[column]].add(sheet.patient_of[image])
            films[split, row.cells[column]] += 1
    classes = sorted({own for counts in found.values() for own in counts})
    order = sorted(found, key=lambda split: _ORDER.get(split, 3))
    text = "; ".join(f"{split}: " + ", ".join(f"{films[split, own]} of {own}" for own in classes) for split in order)
    name = f"classes of {column}"
    if len(found.get("train", classes)) < 2:
        return Finding("stop", name, text, "the training films have one class only: nothing can be learnt")
    few = [(split, own) for split in order for own in classes if len(found[split][own]) < _FEWEST_PATIENTS]
    if few:
        listed = ", ".join(f"{own} in {split} ({len(found[split][own])})" for split, own in few[:4])
        advice = f"fewer than {_FEWEST_PATIENTS} patients of {listed}: intervals will be wide"
        return Finding("look", name, text, advice)
    return Finding("fine", name, text)
