"""The blocks that an evaluation adds to its report, in their order."""

from collections.abc import Callable

from mim.evaluation import Section
from mim.stages.evaluation_context import EvaluationContext
from mim.stages.figure_blocks import calibration_block, operating_points_block, strata_block, usefulness_block

Block = Callable[[EvaluationContext], Section | None]

BLOCKS: tuple[Block, ...] = (operating_points_block, calibration_block, usefulness_block, strata_block)
