"""A run on disk or in an object store: tables, atomic writes, retries, and the lease."""

from caslie_ray.storage.run import Run, open_run
from caslie_ray.storage.schemas import IDS, SCHEMAS

__all__ = ["IDS", "SCHEMAS", "Run", "open_run"]
