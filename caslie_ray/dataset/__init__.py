"""MMECInstruct: reading the released format, its images, and its views (paper section 3)."""

from caslie_ray.dataset._ingest import ingest
from caslie_ray.dataset._planning import IngestPlan, plan_ingest
from caslie_ray.dataset.summary import IngestSummary, unusable
from caslie_ray.errors import SourceError

__all__ = ["IngestPlan", "IngestSummary", "SourceError", "ingest", "plan_ingest", "unusable"]
