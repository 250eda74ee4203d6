"""The profile: every setting of a run, in groups."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from caslie_ray.profiles._base import Settings
from caslie_ray.profiles.captions import CaptionSettings
from caslie_ray.profiles.contexts import ContextSettings
from caslie_ray.profiles.costs import CostSettings
from caslie_ray.profiles.evaluation import EvaluationSettings
from caslie_ray.profiles.experiments import ExperimentSettings
from caslie_ray.profiles.faults import FaultSettings
from caslie_ray.profiles.images import ImageSettings
from caslie_ray.profiles.ingest import IngestSettings
from caslie_ray.profiles.lineup import Lineup
from caslie_ray.profiles.miniature import MiniatureSettings
from caslie_ray.profiles.prediction import PredictionSettings
from caslie_ray.profiles.serving import ServingSettings
from caslie_ray.profiles.storage import StorageSettings
from caslie_ray.profiles.training import TrainingSettings
from caslie_ray.profiles.votes import VoteSettings

__all__ = ["Profile"]


class Profile(Settings):
    """Every setting of a run. Only the lineup must be given; the rest has defaults."""

    name: str = Field(min_length=1)
    """Name of the profile; the file's name unless it says otherwise."""

    lineup: Lineup
    """Which checkpoints are captioner, voters and uniM³ base."""

    captions: CaptionSettings = CaptionSettings()
    """Where captions come from."""

    votes: VoteSettings = VoteSettings()
    """How a verdict is reached."""

    images: ImageSettings = ImageSettings()
    """Limits on images."""

    schedule: Literal["streamed", "staged"] = "staged"
    """`streamed`: all pools at once, which needs room for every model. `staged`: one model at a time."""

    storage: StorageSettings = StorageSettings()
    """How tables are cut into files and blocks."""

    faults: FaultSettings = FaultSettings()
    """What is done about failures."""

    ingest: IngestSettings = IngestSettings()
    """How sources are read."""

    contexts: dict[str, ContextSettings] = Field(default_factory=dict)
    """What captions of a catalogue are written for, by name; `product` if none is given."""

    cost: CostSettings = CostSettings()
    """What an hour of the cluster costs."""

    miniature: MiniatureSettings = MiniatureSettings()
    """The data set that is drawn where no source is given."""

    evaluation: EvaluationSettings = EvaluationSettings()
    """What is measured."""

    training: TrainingSettings = TrainingSettings()
    """How uniM³ is fine-tuned."""

    prediction: PredictionSettings = PredictionSettings()
    """Which questions are answered, and by which models."""

    experiments: ExperimentSettings = ExperimentSettings()
    """Experiments in addition to the method itself."""

    serving: ServingSettings = ServingSettings()
    """How models are served over HTTP."""

    @model_validator(mode="after")
    def _somebody_votes(self) -> Self:
        if self.votes.rule == "majority" and not self.lineup.voters:
            raise ValueError(
                "votes.rule is majority but lineup.voters is empty; "
                "name an odd number of voters, or set votes.rule to always or never"
            )
        return self

    @model_validator(mode="after")
    def _sets_are_of_the_lineup(self) -> Self:
        known = [voter.name for voter in self.lineup.voters]
        for group, sets in (("evaluation", self.evaluation.voter_sets), ("experiments", self.experiments.voter_sets)):
            for name in sorted({name for names in sets for name in names} - set(known)):
                raise ValueError(f"{group}.voter_sets: {name} is no voter of the lineup ({', '.join(known) or 'none'})")
        if self.experiments.voter_sets and self.votes.schedule != "full":
            raise ValueError(
                "experiments.voter_sets: every voter must be asked about every view: set votes.schedule=full"
            )
        return self
