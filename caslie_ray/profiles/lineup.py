"""The lineup: which checkpoint, on which engine, plays captioner, voters and uniM³ base."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from caslie_ray.engines.fingerprint import weight_bytes
from caslie_ray.engines.registry import check_name
from caslie_ray.engines.spec import EngineSpec
from caslie_ray.profiles._base import Listed, Positive, Settings

__all__ = ["Alone", "Captioner", "Generation", "Lineup", "Model", "Pool", "Resources", "Workers"]

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
EngineName = Annotated[str, AfterValidator(check_name)]


class Resources(Settings):
    """What one replica of a model asks of the cluster. Ray keeps count of it; it does not enforce it."""

    cpus: float = Field(default=1.0, ge=0.0)
    """CPU cores a replica; may be a fraction."""

    gpus: float = Field(default=0.0, ge=0.0)
    """GPUs a replica; a fraction shares one GPU. 0 runs on the CPU."""

    memory_gib: float = Field(default=0.0, ge=0.0)
    """Main memory a replica in GiB; 0 asks for none."""

    @model_validator(mode="after")
    def _whole_gpus(self) -> Self:
        if self.gpus > 1 and not float(self.gpus).is_integer():
            raise ValueError(f"gpus is {self.gpus}; above 1 it must be a whole number, as Ray splits no second GPU")
        return self


class Pool(Settings):
    """Number of replicas of a model; also written as `[1, 8]`, or as one number for both."""

    min: Positive = 1
    """Replicas that must be ready before work starts."""

    max: Positive | None = 1
    """Upper limit of replicas. null: as many as the cluster has or can grow to, as far as there is work for them. With
    `schedule: streamed` the captioner then takes what the other models leave, and any other model keeps to `min`."""

    @model_validator(mode="before")
    @classmethod
    def _from_pair(cls, given: object) -> object:
        if isinstance(given, int) and not isinstance(given, bool):
            return {"min": given, "max": given}
        if isinstance(given, (list, tuple)) and len(given) == 2:
            return {"min": given[0], "max": given[1]}
        return given

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max is not None and self.min > self.max:
            raise ValueError(f"min is {self.min} and max is {self.max}; min may not exceed max")
        return self


class Workers(Pool):
    """Number of training workers; a pair that differs is elastic."""

    max: Positive = 1
    """Upper limit of workers."""


class Alone(Settings):
    """What changes where a model has the GPUs to itself: in `schedule: staged`, and in `predict`. null: no change."""

    batch_size: Positive | None = None
    """As `batch_size` of the model."""

    batch_tokens: Positive | None = None
    """As `batch_tokens` of the model."""

    cpus: float | None = Field(default=None, ge=0.0)
    """As `resources.cpus`."""

    gpus: float | None = Field(default=None, ge=0.0)
    """As `resources.gpus`: 1 gives each replica a GPU of its own."""

    memory_gib: float | None = Field(default=None, ge=0.0)
    """As `resources.memory_gib`."""


class Generation(Settings):
    """How text is generated: greedy unless `do_sample` is set. What is null is left out."""

    repetition_penalty: float | None = Field(default=None, gt=0.0)
    """Above 1, tokens that already occurred become less likely."""

    min_new_tokens: Positive | None = None
    """Tokens before the answer may end."""

    do_sample: bool | None = None
    """Draw tokens at random. The same request may then be answered otherwise by a retry."""

    temperature: float | None = Field(default=None, gt=0.0)
    """Above 1, unlikely tokens are drawn more often; below 1, less."""

    top_k: Positive | None = None
    """Draw among so many of the likeliest tokens."""

    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    """Draw among the likeliest tokens that together have this probability."""

    @model_validator(mode="after")
    def _sampled(self) -> Self:
        given = [key for key in ("temperature", "top_k", "top_p") if getattr(self, key) is not None]
        if given and not self.do_sample:
            raise ValueError(f"{', '.join(given)} only matters where do_sample is true; set it, or leave that out")
        return self


class Model(Settings):
    """One checkpoint in one role: how it is loaded, run and scaled."""

    name: ModelName
    """Name of the model in tables, logs and `--set` paths: letters, digits, `-` and `_`."""

    checkpoint: str = Field(min_length=1)
    """`miniature:NAME` (shipped here), `smollm2` (from its package), a path, or a model hub id."""

    revision: str | None = None
    """Branch, tag or commit of a hub id; pin a commit, since `main` moves. Null for anything local."""

    engine: EngineName = "transformers"
    """What runs the checkpoint: `transformers`, `vllm`, `auto` (vLLM where it can), or your own `module:function`."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights and the KV cache: 4 bytes a number for float32, 2 for the others."""

    context: int = Field(ge=16)
    """Most tokens of prompt and answer together; a longer prompt is cut and flagged."""

    max_new_tokens: Positive = 64
    """Maximum tokens of a generated answer; a longer one is truncated. A vote generates none."""

    batch_size: Positive = 16
    """Most requests in one forward pass."""

    batch_tokens: Positive = 16384
    """Most tokens in one forward pass, padding included. This bounds the memory of long prompts."""

    generation: Generation = Generation()
    """How text is generated; greedy unless set otherwise."""

    cost: float | None = Field(default=None, gt=0.0)
    """Relative cost of one call, to ask the cheapest voter first. Null takes the bytes of the weights."""

    resources: Resources = Resources()
    """What a replica asks of the cluster while other models run beside it (`schedule: streamed`)."""

    alone: Alone = Alone()
    """What changes where no other model runs beside it (`schedule: staged`, and `predict`)."""

    pool: Pool = Pool()
    """Number of replicas."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.max_new_tokens >= self.context:
            raise ValueError(
                f"max_new_tokens is {self.max_new_tokens} and context is {self.context}; "
                "the context holds prompt and answer, so max_new_tokens must be smaller"
            )
        if self.batch_tokens < self.context:
            raise ValueError(
                f"batch_tokens is {self.batch_tokens} and context is {self.context}; "
                "the longest prompt must fit in a batch, so batch_tokens must be at least context"
            )
        if self.alone.batch_tokens is not None and self.alone.batch_tokens < self.context:
            raise ValueError(
                f"alone.batch_tokens is {self.alone.batch_tokens} and context is {self.context}; "
                "the longest prompt must fit in a batch, so alone.batch_tokens must be at least context"
            )
        Resources.model_validate(self._alone_resources())
        return self

    def _alone_resources(self) -> dict[str, Any]:
        changed = self.alone.model_dump(include=set(Resources.model_fields), exclude_none=True)
        return {**self.resources.model_dump(), **changed}

    def by_itself(self) -> Model:
        """This model with the settings of `alone` in place of those that it has beside other models."""
        batches = self.alone.model_dump(include={"batch_size", "batch_tokens"}, exclude_none=True)
        return self.model_copy(update={**batches, "resources": Resources(**self._alone_resources())})

    @property
    def device(self) -> Literal["cuda", "cpu"]:
        """Where a replica runs: on the GPU it was given, or else on the CPU even where a GPU is in sight."""
        return "cuda" if self.resources.gpus > 0 else "cpu"

    def spec(self) -> EngineSpec:
        """What `engines.load_engine` needs to load this model."""
        return EngineSpec(
            checkpoint=self.checkpoint,
            engine=self.engine,
            revision=self.revision,
            dtype=self.dtype,
            context=self.context,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
            batch_tokens=self.batch_tokens,
            device=self.device,
            gpus=self.resources.gpus,
            generation=self.generation.model_dump(exclude_none=True),
        )

    def call_cost(self) -> float:
        """Relative cost of a call: `cost`, else the bytes of the weights, infinite where neither is known."""
        if self.cost is not None:
            return self.cost
        size = weight_bytes(self.checkpoint, self.revision)
        return float("inf") if size is None else float(size)

    def shares_pool(self, other: Model) -> bool:
        """Whether the two roles are played by one checkpoint, and so by one pool of replicas."""
        return (self.checkpoint, self.revision) == (other.checkpoint, other.revision)


class Captioner(Model):
    """The model that writes captions: answers are longer by default."""

    max_new_tokens: Positive = 128
    """Maximum tokens of a caption; a longer one is truncated, and marked in `captions.caption_truncated`."""


class Lineup(Settings):
    """The captioner, the voters and the uniM³ base."""

    captioner: Captioner
    """The EC³ model that writes the captions (paper 4.1)."""

    voters: Listed[Model]
    """The CQE models that vote on a caption (paper 4.2): an odd number, no two with one name."""

    base: Model
    """The language model that is fine-tuned into uniM³ (paper 4.3)."""

    @model_validator(mode="after")
    def _votes_decide(self) -> Self:
        names = [voter.name for voter in self.voters]
        if self.voters and len(self.voters) % 2 == 0:
            raise ValueError(
                f"voters are {len(names)} ({', '.join(names)}); a majority needs an odd number, such as 1, 3, 5 or 7"
            )
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise ValueError(f"voters {', '.join(twice)} occur twice; each voter needs a name of its own")
        costs = {voter.cost is None for voter in self.voters}
        if len(costs) > 1:
            missing = ", ".join(voter.name for voter in self.voters if voter.cost is None)
            raise ValueError(f"voters {missing} have no cost but others do; give all of them a cost, or none")
        return self

    @model_validator(mode="after")
    def _one_pool_agrees(self) -> Self:
        free = {"name", "cost", "max_new_tokens"}  # a vote generates no text
        captioner = self.captioner.model_dump(exclude=free)
        for voter in self.voters:
            if not voter.shares_pool(self.captioner):
                continue
            differing = [key for key, value in voter.model_dump(exclude=free).items() if value != captioner[key]]
            if differing:
                raise ValueError(
                    f"the captioner and voter {voter.name} share the checkpoint {voter.checkpoint} "
                    f"and so one pool, but differ in {', '.join(differing)}; set both alike"
                )
        return self

    def voters_by_cost(self) -> tuple[Model, ...]:
        """The voters, cheapest first; equal costs keep the order of the profile."""
        return tuple(sorted(self.voters, key=Model.call_cost))
