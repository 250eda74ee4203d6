"""Profiles: one typed, validated configuration of a run.

`load_profile("mini")` reads a shipped profile, a file or a URI; a wrong key or value is a ProfileError that
names its location, the value, and what is allowed.
"""

from caslie_ray.profiles.alone import Alone
from caslie_ray.profiles.captions import CaptionSettings
from caslie_ray.profiles.contexts import ContextSettings
from caslie_ray.profiles.costs import CostSettings
from caslie_ray.profiles.errors import ProfileError
from caslie_ray.profiles.evaluation import EvaluationSettings
from caslie_ray.profiles.experiments import ExperimentSettings
from caslie_ray.profiles.faults import FaultSettings
from caslie_ray.profiles.generation import Generation
from caslie_ray.profiles.images import ImageSettings
from caslie_ray.profiles.ingest import IngestSettings
from caslie_ray.profiles.lineup import Lineup
from caslie_ray.profiles.loading import load_profile, profile_names
from caslie_ray.profiles.lora import LoraSettings
from caslie_ray.profiles.miniature import MiniatureSettings
from caslie_ray.profiles.model import Captioner, Model
from caslie_ray.profiles.pool import Pool, Workers
from caslie_ray.profiles.prediction import PredictionSettings
from caslie_ray.profiles.resources import Resources
from caslie_ray.profiles.schema import Profile
from caslie_ray.profiles.serving import ServingSettings
from caslie_ray.profiles.source_keys import SourceKeys
from caslie_ray.profiles.storage import StorageSettings
from caslie_ray.profiles.training import TrainingSettings
from caslie_ray.profiles.votes import VoteSettings

__all__ = [
    "Alone",
    "CaptionSettings",
    "Captioner",
    "ContextSettings",
    "CostSettings",
    "EvaluationSettings",
    "ExperimentSettings",
    "FaultSettings",
    "Generation",
    "ImageSettings",
    "IngestSettings",
    "Lineup",
    "LoraSettings",
    "MiniatureSettings",
    "Model",
    "Pool",
    "PredictionSettings",
    "Profile",
    "ProfileError",
    "Resources",
    "ServingSettings",
    "SourceKeys",
    "StorageSettings",
    "TrainingSettings",
    "VoteSettings",
    "Workers",
    "load_profile",
    "profile_names",
]
