"""The blocks that an evaluation adds to its report, in their order."""

from collections.abc import Callable

from mim.evaluation import Section
from mim.stages.evaluation_context import EvaluationContext
from mim.stages.faithfulness import faithfulness_section

Block = Callable[[EvaluationContext], Section | None]

BLOCKS: tuple[Block, ...] = (faithfulness_section,)
