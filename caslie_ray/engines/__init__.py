"""Model inference behind one interface, `Engine`. Independent of captions, votes, tasks and Ray."""

from caslie_ray.engines._architectures import takes_instructions
from caslie_ray.engines._base import Choice, Engine, EngineStats, Failure, Generation, Request
from caslie_ray.engines._checkpoints import Checkpoint, CheckpointError, resolve
from caslie_ray.engines._choice_tokens import ChoiceError
from caslie_ray.engines.fingerprint import fingerprint, weight_bytes
from caslie_ray.engines.registry import ENGINES, load_engine, overlap
from caslie_ray.engines.spec import EngineSpec, LoraShape
from caslie_ray.errors import EngineError

__all__ = [
    "ENGINES",
    "Checkpoint",
    "CheckpointError",
    "Choice",
    "ChoiceError",
    "Engine",
    "EngineError",
    "EngineSpec",
    "EngineStats",
    "Failure",
    "Generation",
    "LoraShape",
    "Request",
    "fingerprint",
    "load_engine",
    "overlap",
    "resolve",
    "takes_instructions",
    "weight_bytes",
]
