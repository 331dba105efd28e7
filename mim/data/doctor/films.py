"""What can be said of the films themselves."""

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from mim.data.copies import FLAT_CONTENTS, copies_of
from mim.data.doctor.findings import Finding
from mim.data.doctor.polarity import find_inverted
from mim.data.doctor.survey import Survey, names_of
from mim.data.duplicates import find_pairs
from mim.data.manifest import ManifestRow

_SMALL = 64  # pixels of the shorter side
_RADIOGRAPHS = frozenset({"CR", "DX", "IO", "PX", "MG", "RG", "RF", "XA"})
_SPACING_TOLERANCE = 0.05


def check_films(survey: Survey) -> Iterator[Finding]:
    """Look at what was skipped, sizes, bits, modalities, spacing, headers, polarity and copies."""
    yield _unreadable(survey)
    yield _sizes(survey.rows)
    yield _bits(survey.rows)
    yield _modalities(survey.rows)
    yield _spacing(survey.rows)
    yield from _headers(survey)
    yield from _polarity(survey)
    yield _blank(survey.rows)
    yield from _copies(survey)


def near_copies(survey: Survey) -> list[tuple[int, int]]:
    """Pairs of films of two files that look nearly alike and are no exact copies; see `mim.data.duplicates`."""
    first_rows = list(
        {(row.image, row.frame): number for number, row in reversed(list(enumerate(survey.rows)))}.values()
    )
    numbers = sorted(number for number in first_rows if survey.rows[number].content not in FLAT_CONTENTS)
    numbers = [number for number in numbers if survey.rows[number].perceptual_hash]
    hashes = [survey.rows[number].perceptual_hash for number in numbers]
    pairs = [(numbers[first], numbers[second]) for first, second in find_pairs(hashes).tolist()]
    return [
        (one, other)
        for one, other in pairs
        if survey.rows[one].content != survey.rows[other].content and survey.rows[one].image != survey.rows[other].image
    ]


def _unreadable(survey: Survey) -> Finding:
    if not survey.skipped:
        return Finding("fine", "unreadable", "every film could be read")
    counts = Counter(skipped.reason for skipped in survey.skipped)
    reasons = ", ".join(f"{reason}: {count}" for reason, count in counts.most_common())
    return Finding(
        "look",
        "unreadable",
        f"{len(survey.skipped)} files or frames are no readable radiographs ({reasons})",
        "docs/reference/dicom.md says what each reason means; export anew what should be a film",
        tuple(skipped.image for skipped in survey.skipped),
    )


def _sizes(rows: Sequence[ManifestRow]) -> Finding:
    widths, heights = [row.width for row in rows], [row.height for row in rows]
    text = (
        f"width {min(widths)} to {max(widths)} (median {statistics.median(widths):.0f}), "
        f"height {min(heights)} to {max(heights)} (median {statistics.median(heights):.0f}) pixels"
    )
    small = [number for number, row in enumerate(rows) if min(row.width, row.height) < _SMALL]
    if small:
        return Finding(
            "look",
            "sizes",
            f"{text}; {len(small)} films are below {_SMALL} pixels",
            "previews and icons are no films: move them elsewhere",
            names_of(rows, small),
        )
    return Finding("fine", "sizes", text)


def _bits(rows: Sequence[ManifestRow]) -> Finding:
    counts = Counter(row.bits for row in rows)
    text = ", ".join(f"{bits} bits: {count} films" for bits, count in sorted(counts.items()))
    if min(counts) <= 8 < max(counts):
        fewer = [number for number, row in enumerate(rows) if row.bits <= 8]
        return Finding(
            "look",
            "bits",
            text,
            "films of 8 bits among others were exported another way, often with another window; if that way goes with "
            "the label or the site, a network learns it",
            names_of(rows, fewer),
        )
    return Finding("fine", "bits", text)


def _modalities(rows: Sequence[ManifestRow]) -> Finding:
    counts = Counter(row.modality or "unknown" for row in rows)
    text = ", ".join(f"{modality}: {count} films" for modality, count in counts.most_common())
    others = [number for number, row in enumerate(rows) if row.modality and row.modality not in _RADIOGRAPHS]
    if others:
        advice = "not all of these are radiographs: move what is none elsewhere"
        return Finding("look", "modalities", text, advice, names_of(rows, others))
    if len(counts) > 1:
        return Finding("look", "modalities", text, "are they meant to be in one set?")
    return Finding("fine", "modalities", text)


def _spacing(rows: Sequence[ManifestRow]) -> Finding:
    known = [row.spacing_mm[0] for row in rows if row.spacing_mm is not None]
    without = [number for number, row in enumerate(rows) if row.spacing_mm is None]
    if not known:
        return Finding("look", "pixel spacing", "no film says how large its pixels are", "nothing can be given in mm")
    text = f"{min(known):.4g} to {max(known):.4g} mm"
    if without:
        advice = f"a lesion of one size has several in pixels, and for {len(without)} films nobody knows which"
        return Finding("look", "pixel spacing", f"{text}; absent in {len(without)}", advice, names_of(rows, without))
    if max(known) > min(known) * (1 + _SPACING_TOLERANCE):
        kinds = Counter(f"{spacing:.3g} mm" for spacing in known).most_common(4)
        listed = ", ".join(f"{kind}: {count} films" for kind, count in kinds)
        return Finding("look", "pixel spacing", f"{text} ({listed})", "a lesion of one size has several in pixels")
    return Finding("fine", "pixel spacing", text)


def _headers(survey: Survey) -> Iterator[Finding]:
    if not survey.headers_known:
        yield Finding(
            "look",
            "headers",
            "the folder that was prepared is not there, so burnt-in annotations and films FOR PROCESSING are not known",
            "run this on the folder of films",
        )
        return
    burned = tuple(image for image, notes in survey.notes.items() if notes.burned_in)
    silent = sum(notes.burned_in is None for notes in survey.notes.values())
    said = f"of {len(survey.notes)} DICOM files, {silent} do not say (0028,0301)"
    if not survey.notes:
        said = "there are no DICOM files, and others do not say"
    if burned:
        yield Finding(
            "look",
            "burnt-in annotation",
            f"{len(burned)} films have text in their pixels, by their own account; {said}",
            "look whether it names somebody before a film leaves the house; mim stores pixels as they are",
            burned,
        )
    else:
        yield Finding("fine", "burnt-in annotation", f"no film says that it has any; {said}")
    raw = tuple(image for image, notes in survey.notes.items() if notes.for_processing)
    if raw:
        yield Finding(
            "look",
            "for processing",
            f"{len(raw)} films are FOR PROCESSING: raw detector values that nobody reads",
            "ask for the ones FOR PRESENTATION; else they look unlike the rest",
            raw,
        )
    else:
        yield Finding("fine", "for processing", "no film is FOR PROCESSING")


def _polarity(survey: Survey) -> Iterator[Finding]:
    if any(row.tile is not None for row in survey.rows):
        text = "films are cut into tiles, of which polarity cannot be judged"
        yield Finding("look", "polarity", text, "run this on the folder of films")
        return
    found = find_inverted(survey.tiny, [row.modality for row in survey.rows])
    if found.inverted:
        yield Finding(
            "look",
            "inverted films",
            f"{len(found.inverted)} films look like negatives of the others of their modality",
            "look at them; an export that ignores MONOCHROME1 makes such, and a network learns who made it",
            names_of(survey.rows, found.inverted),
        )
    if found.dark_centre:
        kinds = ", ".join(kind or "unknown modality" for kind in found.dark_centre)
        yield Finding(
            "look",
            "polarity",
            f"films are brighter at the border than in the centre ({kinds}): all of them may be inverted",
            "look at some: air must be black",
        )
    if not found.inverted and not found.dark_centre and found.unjudged < len(survey.rows):
        few = f"; {found.unjudged} films are of modalities with too few to tell" if found.unjudged else ""
        yield Finding("fine", "inverted films", f"none looks like a negative of the others{few}")
    if found.unjudged == len(survey.rows):
        yield Finding(
            "look", "inverted films", "too few films to tell whether any is inverted", "look at them yourself"
        )


def _blank(rows: Sequence[ManifestRow]) -> Finding:
    blank = [number for number, row in enumerate(rows) if row.content in FLAT_CONTENTS]
    if blank:
        text = f"{len(blank)} films are of one even grey"
        return Finding("look", "blank films", text, "remove failed exposures", names_of(rows, blank))
    return Finding("fine", "blank films", "none")


def _copies(survey: Survey) -> Iterator[Finding]:
    rows = survey.rows
    numbers = {id(row): number for number, row in enumerate(rows)}
    groups = []
    for films in copies_of(rows).values():
        own = sorted({(row.image, row.frame): numbers[id(row)] for row in films}.values())
        if len(own) > 1:
            groups.append(own)
    yield _describe_copies(rows, groups, "exact copies")
    yield _describe_copies(rows, [list(pair) for pair in near_copies(survey)], "near copies")


def _describe_copies(rows: Sequence[ManifestRow], groups: Sequence[Sequence[int]], name: str) -> Finding:
    if not groups:
        return Finding("fine", name, "none")
    across = sum(len({rows[number].patient_id or rows[number].image for number in group}) > 1 for group in groups)
    surplus = len({number for group in groups for number in sorted(group)[1:]})
    return Finding(
        "look",
        name,
        f"{surplus} films are copies of others; {across} of {len(groups)} groups are of films of two patients, or of "
        "patients that the headers do not tell",
        "keep one of each; copies of one film must never be in two splits",
        tuple(" = ".join(names_of(rows, group)) for group in groups),
    )
