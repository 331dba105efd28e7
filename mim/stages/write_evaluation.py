"""How every evaluation ends: tables, model card and report in their folder, and what is said of them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mim.config import EvaluateConfig
from mim.data import save_near_copies
from mim.evaluation import Header
from mim.evaluation.external import facts_of_external
from mim.evaluation.model_card import write_model_card
from mim.stages.common import logger, write_lines, writing
from mim.stages.near_copies import FILE as NEAR_COPIES
from mim.stages.near_copies import CopiesMet


def output_of(config: EvaluateConfig, run: Path, header: Header) -> Path:
    """Where the report goes: where `output` says, else into the run, or into a folder of an external test set."""
    if config.output:
        return Path(config.output)
    return run if header.external is None else run / f"external-{header.data[:8]}"


def write_evaluation(
    output: Path,
    header: Header,
    met: CopiesMet,
    facts: Mapping[str, str],
    said: Sequence[str],
    write: Callable[[Path], Path],
    lines: Sequence[str],
    *,
    unsaid: int = 0,
) -> Path:
    """Writes an evaluation and says what came of it.

    Args:
        output: the folder; made where it is missing.
        header: what the figures belong to.
        met: near copies of test films.
        facts: of the model card, but for what it says of an external test set.
        said: what a reader must know first: it begins the model card, and is logged.
        write: writes tables and report into the folder and gives the report.
        lines: for standard output.
        unsaid: how many of `said`, from the first, are not logged.

    Returns:
        The folder.

    Raises:
        MimError: it could not be written.
    """
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        save_near_copies(output / NEAR_COPIES, met.copies)
        report = write(output)
        write_model_card(output, {**facts, **facts_of_external(header.external, met.counts)}, said)
    for warning in said[unsaid:]:
        logger.warning("%s", warning)
    write_lines(*lines, f"report: {report}")
    return output
