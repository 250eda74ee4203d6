"""EC³ and CQE as one job: views become captions, votes and verdicts (paper 4.1 and 4.2)."""

from caslie_ray.captioning._context_free import CONTEXT_FREE_FOLDER, context_free_job, context_free_run
from caslie_ray.captioning._job import CaptionJob, CaptionResult, caption
from caslie_ray.captioning._known_answers import KnownAnswers
from caslie_ray.captioning._plan import CaptionPlan, plan_captions
from caslie_ray.captioning._requests import CONTEXT_FREE
from caslie_ray.captioning._rows import Row, View, caption_rows, read_views
from caslie_ray.captioning._status import CaptionStatus, caption_status
from caslie_ray.captioning._voting import advance

__all__ = [
    "CONTEXT_FREE", "CONTEXT_FREE_FOLDER", "CaptionJob", "CaptionPlan", "CaptionResult", "CaptionStatus",
    "KnownAnswers", "Row", "View", "advance", "caption", "caption_rows", "caption_status", "context_free_job",
    "context_free_run", "plan_captions", "read_views",
]  # fmt: skip
