"""MMECInstruct: reading the released format, its images, and its views (paper section 3)."""

from caslie_ray.dataset.ingest import ingest
from caslie_ray.dataset.planning import IngestPlan, plan_ingest
from caslie_ray.dataset.summary import IngestSummary, unusable
from caslie_ray.errors import SourceError

__all__ = ["IngestPlan", "IngestSummary", "SourceError", "ingest", "plan_ingest", "unusable"]
