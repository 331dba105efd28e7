"""Coded concepts: of SNOMED CT, DICOM and UCUM where they have one, else of mim's own scheme."""

import hashlib
import re
from dataclasses import dataclass

OWN_SCHEME = "99MIM"
"""Private scheme (PS3.3 8.2): its values mean what their meaning says, and nothing else."""

_UNITS = "UCUM"
_LONGEST_CODE = 16  # characters (PS3.3 8.1)


@dataclass(frozen=True)
class Concept:
    """A coded concept: at most 16 characters of value and scheme, 64 of meaning (PS3.3 8.1 and 8.3)."""

    value: str
    scheme: str
    meaning: str


CARIES = Concept("80967001", "SCT", "Dental caries")
PRESENT = Concept("52101004", "SCT", "Present")
ABSENT = Concept("272519000", "SCT", "Absent")
ABNORMAL = Concept("49755003", "SCT", "Morphologically Abnormal Structure")
SPATIAL = Concept("309825002", "SCT", "Spatial and Relational Concept")
DENTAL_RADIOGRAPHY = Concept("1290849002", "SCT", "Dental radiography")
PLAIN_RADIOGRAPHY = Concept("168537006", "SCT", "Plain radiography")
CERTAINTY = Concept("111012", "DCM", "Certainty of Finding")
PRESENCE = Concept("121052", "DCM", "Presence of property")
LEARNED = Concept("123110", "DCM", "Artificial Intelligence")
DEVICE = Concept("121007", "DCM", "Device")
PERCENT = Concept("%", _UNITS, "Percent")
SEEN = Concept("SEEN", OWN_SCHEME, "Part of the film that the network saw")
SEEN_SHARE = Concept("SEEN-SHARE", OWN_SCHEME, "Share of the film's cells that the network saw")

_KNOWN = {"caries": CARIES, "dental caries": CARIES}
_DENTAL = ("IO", "PX")


def concept_of(name: str) -> Concept:
    """The concept of a label column, a class or a category: a standard one where it is known, else one of mim's own.

    Names that differ in more than case and spaces have codes that differ: where a code cannot hold a name (letters
    other than A to Z, a long name), it ends in a hash of it.
    """
    known = _KNOWN.get(name.strip().casefold().replace("_", " "))
    if known is not None:
        return known
    meaning = " ".join("".join(c if c.isprintable() and c != "\\" else " " for c in name).split())[:64].strip()
    spelt = re.sub(r"[^A-Z0-9]+", "-", name.upper()).strip("-")
    if len(spelt) <= _LONGEST_CODE and re.fullmatch(r"[A-Za-z0-9 _-]+", name) and spelt:
        return Concept(spelt, OWN_SCHEME, meaning)
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8].upper()
    beginning = spelt[: _LONGEST_CODE - len(digest) - 1].strip("-") or "FINDING"
    return Concept(f"{beginning}-{digest}", OWN_SCHEME, meaning or "Finding")


def procedure_of(modality: str) -> Concept:
    """The procedure that a film is of."""
    return DENTAL_RADIOGRAPHY if modality in _DENTAL else PLAIN_RADIOGRAPHY
