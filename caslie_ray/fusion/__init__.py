"""uniM³'s input: samples and verdicts become instructions (paper 4.3).

A join of `samples` with `captions` on the view id, in tasks that exchange rows through files: the driver holds counts
and names of partitions. See `caslie_ray.fusion._job` for its steps.
"""

from caslie_ray.fusion._instructions import instructions_of, sample_of
from caslie_ray.fusion._job import fuse
from caslie_ray.fusion._plan import plan_fusion
from caslie_ray.fusion._variants import (
    CONTEXT_FREE,
    EXPERIMENTS,
    SHUFFLED,
    VARIANTS,
    VERDICT_ONLY,
    Captioned,
    experiments_of,
)

__all__ = [
    "CONTEXT_FREE", "EXPERIMENTS", "SHUFFLED", "VARIANTS", "VERDICT_ONLY", "Captioned", "experiments_of", "fuse",
    "instructions_of", "plan_fusion", "sample_of",
]  # fmt: skip
