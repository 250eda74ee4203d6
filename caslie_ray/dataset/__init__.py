"""Data sets and catalogues: samples or products, their images, and their views (paper section 3)."""

from caslie_ray.dataset._ingest import ingest
from caslie_ray.dataset._planning import IngestPlan, plan_ingest
from caslie_ray.dataset._preview import preview_prompts
from caslie_ray.dataset.summary import IngestSummary, unusable
from caslie_ray.errors import SourceError

__all__ = ["IngestPlan", "IngestSummary", "SourceError", "ingest", "plan_ingest", "preview_prompts", "unusable"]
