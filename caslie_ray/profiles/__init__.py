"""Profiles: one typed, validated configuration of a run.

`load_profile("mini")` reads a shipped profile, a file or a URI; a wrong key or value is a ProfileError that
says where it stands, what it is, and what is allowed.
"""

from caslie_ray.profiles.errors import ProfileError
from caslie_ray.profiles.experiments import ExperimentSettings
from caslie_ray.profiles.faults import CostSettings, FaultSettings
from caslie_ray.profiles.images import ImageSettings
from caslie_ray.profiles.lineup import Alone, Captioner, Generation, Lineup, Model, Pool, Resources, Workers
from caslie_ray.profiles.loading import load_profile, profile_names
from caslie_ray.profiles.prediction import PredictionSettings
from caslie_ray.profiles.schema import Profile
from caslie_ray.profiles.storage import IngestSettings, SourceKeys, StorageSettings
from caslie_ray.profiles.training import LoraSettings, TrainingSettings
from caslie_ray.profiles.votes import CaptionSettings, VoteSettings

__all__ = [
    "Alone",
    "CaptionSettings",
    "Captioner",
    "CostSettings",
    "ExperimentSettings",
    "FaultSettings",
    "Generation",
    "ImageSettings",
    "IngestSettings",
    "Lineup",
    "LoraSettings",
    "Model",
    "Pool",
    "PredictionSettings",
    "Profile",
    "ProfileError",
    "Resources",
    "SourceKeys",
    "StorageSettings",
    "TrainingSettings",
    "VoteSettings",
    "Workers",
    "load_profile",
    "profile_names",
]
