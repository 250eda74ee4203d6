"""An engine in a process of its own, so that a row that crashes, hangs or overfills it costs no other row.

    owner ── keeper ── engine process ── what the engine starts (vLLM's processes)

`EngineProcess` (`_engine`) is what callers use. Beneath it: `_retry` has the poison rule, `_supervisor` keeps a process
running and admits calls, `_child_handle` speaks to one process, `child` is that process, and `_keeper` ends it and its
descendants when the owner ends.
"""

from caslie_ray.engines.process._calls import Cancel
from caslie_ray.engines.process._counters import Counters
from caslie_ray.engines.process._engine import EngineProcess
from caslie_ray.engines.process._errors import Cancelled, EngineDown, RequestFailed
from caslie_ray.engines.process._limits import ProcessLimits

__all__ = ["Cancel", "Cancelled", "Counters", "EngineDown", "EngineProcess", "ProcessLimits", "RequestFailed"]
