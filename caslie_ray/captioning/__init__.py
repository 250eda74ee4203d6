"""EC³ and CQE as one job: views become captions, votes and verdicts (paper 4.1 and 4.2)."""

from caslie_ray.captioning._context_free import CONTEXT_FREE_FOLDER, context_free_job, context_free_run
from caslie_ray.captioning._job import CaptionJob, CaptionResult, caption
from caslie_ray.captioning._plan import CaptionPlan, plan_captions
from caslie_ray.captioning._stages import CONTEXT_FREE
from caslie_ray.captioning._status import CaptionStatus, caption_status

__all__ = [
    "CONTEXT_FREE", "CONTEXT_FREE_FOLDER", "CaptionJob", "CaptionPlan", "CaptionResult", "CaptionStatus", "caption",
    "caption_status", "context_free_job", "context_free_run", "plan_captions",
]  # fmt: skip
