"""The blocks that an evaluation adds to its report, in their order."""

from collections.abc import Callable

from mim.evaluation import Section
from mim.stages.evaluation_context import EvaluationContext
from mim.stages.explain import explanations_section
from mim.stages.faithfulness import faithfulness_section
from mim.stages.figure_blocks import calibration_block, operating_points_block, strata_block, usefulness_block
from mim.stages.mask_shape import mask_shape_section
from mim.stages.missingness import missingness_section

Block = Callable[[EvaluationContext], Section | None]

BLOCKS: tuple[Block, ...] = (
    faithfulness_section,
    operating_points_block,
    calibration_block,
    usefulness_block,
    strata_block,
    missingness_section,
    mask_shape_section,
    explanations_section,
)
