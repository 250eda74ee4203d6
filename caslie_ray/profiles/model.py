"""One checkpoint in one role: how it is loaded, run and scaled."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from caslie_ray.engines.registry import check_name
from caslie_ray.engines.spec import EngineSpec
from caslie_ray.profiles._base import Positive, Settings
from caslie_ray.profiles.alone import Alone
from caslie_ray.profiles.generation import Generation
from caslie_ray.profiles.pool import Pool
from caslie_ray.profiles.resources import Resources

__all__ = ["Captioner", "Model"]

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
EngineName = Annotated[str, AfterValidator(check_name)]


class Model(Settings):
    """One checkpoint in one role: how it is loaded, run and scaled."""

    name: ModelName
    """Name of the model in tables, logs and `--set` paths: letters, digits, `-` and `_`."""

    checkpoint: str = Field(min_length=1)
    """`miniature:NAME` (shipped here), `smollm2` (from its package), a path, or a model hub id."""

    revision: str | None = None
    """Branch, tag or commit of a hub id; pin a commit, since `main` moves. Null for local checkpoints."""

    engine: EngineName = "transformers"
    """What runs the checkpoint: `transformers`, `vllm`, `auto` (vLLM if it supports the model), or your own
    `module:function`."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Data type of weights and KV cache: 4 bytes for float32, 2 for the others."""

    context: int = Field(ge=16)
    """Maximum tokens of prompt and answer together; a longer prompt is cut and flagged."""

    max_new_tokens: Positive = 64
    """Maximum tokens of a generated answer; a longer one is truncated. A vote generates none."""

    batch_size: Positive = 16
    """Maximum requests per forward pass."""

    batch_tokens: Positive = 16384
    """Maximum tokens per forward pass, padding included. Bounds the memory of long prompts."""

    generation: Generation = Generation()
    """How text is generated; greedy unless set otherwise."""

    cost: float | None = Field(default=None, gt=0.0)
    """Relative cost of a call: the cheapest voter is asked first. Null: the size of the weights."""

    resources: Resources = Resources()
    """What a replica requests while other models run too (`schedule: streamed`)."""

    alone: Alone = Alone()
    """Overrides while no other model runs (`schedule: staged`, and `predict`)."""

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
        """Return this model with the overrides of `alone`."""
        batches = self.alone.model_dump(include={"batch_size", "batch_tokens"}, exclude_none=True)
        return self.model_copy(update={**batches, "resources": Resources(**self._alone_resources())})

    @property
    def device(self) -> Literal["cuda", "cpu"]:
        """`cuda` if the replica requests a GPU; otherwise `cpu`, even if the machine has GPUs."""
        return "cuda" if self.resources.gpus > 0 else "cpu"

    def spec(self) -> EngineSpec:
        """Return what `engines.load_engine` needs to load this model."""
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

    def shares_pool(self, other: Model) -> bool:
        """Return whether two roles use one checkpoint, and so one pool of replicas."""
        return (self.checkpoint, self.revision) == (other.checkpoint, other.revision)


class Captioner(Model):
    """The model that writes captions; its answers are longer by default."""

    max_new_tokens: Positive = 128
    """Maximum tokens of a caption; a longer one is truncated, and marked in `captions.caption_truncated`."""
