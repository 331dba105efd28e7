"""The blocks of the report that need the table of predictions alone."""

from mim.evaluation import Section
from mim.evaluation.calibration_section import calibration_section
from mim.evaluation.decision_curve import decision_section
from mim.evaluation.operating_points import operating_points_section
from mim.evaluation.strata_section import strata_section
from mim.stages.evaluation_context import EvaluationContext


def operating_points_block(context: EvaluationContext) -> Section:
    """Sensitivity at a fixed specificity."""
    return operating_points_section(context.predictions, context.metrics.settings)


def calibration_block(context: EvaluationContext) -> Section:
    """Whether the scores are probabilities."""
    return calibration_section(context.predictions, context.metrics.settings)


def usefulness_block(context: EvaluationContext) -> Section:
    """The decision curve."""
    return decision_section(context.predictions, context.metrics.settings)


def strata_block(context: EvaluationContext) -> Section | None:
    """Groups of films, where the table of predictions has columns to divide them by."""
    return strata_section(context.predictions, context.metrics.settings)
