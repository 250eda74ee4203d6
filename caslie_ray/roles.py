"""The resolved lineup: which models are asked, in which order, under which fingerprints."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from caslie_ray.engines import EngineSpec, LoraShape, takes_instructions
from caslie_ray.engines.fingerprint import fingerprint, weight_bytes
from caslie_ray.engines.revisions import pinned
from caslie_ray.engines.selection import AUTO, choose_engine
from caslie_ray.errors import EngineError
from caslie_ray.hashing import content_id
from caslie_ray.profiles import FaultSettings, Lineup, Model, Pool, Profile, ProfileError, Resources
from caslie_ray.quality import audited

__all__ = [
    "ResolvedLineup", "Role", "call_cost", "captioning_models", "engine_lines", "needed_names", "optional_names",
    "resolve", "role_of", "voters_by_cost",
]  # fmt: skip

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Role:
    """One model in one role.

    Attributes:
        name: its name in the profile, and in the votes of the `captions` table.
        fingerprint: hash of everything that its answers depend on, 32 hexadecimal digits.
        pool: its pool of replicas; roles that share a checkpoint share one.
        spec: what a replica loads.
        why: reason for the engine if the profile says `auto`; else empty.
        resources: what a replica requests from the cluster.
        replicas: limits of the number of replicas.
    """

    name: str
    fingerprint: str
    pool: str
    spec: EngineSpec
    why: str
    resources: Resources
    replicas: Pool

    @property
    def engine(self) -> str:
        """Its engine, with the reason if the profile says `auto`."""
        return self.spec.engine + (f" · {self.why}" if self.why else "")

    @property
    def answers(self) -> str:
        """Folder of the run with this model's answers."""
        return f"answers/{self.name}-{self.fingerprint[:12]}"


@dataclass(frozen=True)
class ResolvedLineup:
    """Captioner, voters and rules.

    Attributes:
        captioner: None if captions come with the data, or are never used.
        voters: the one that shares the captioner's checkpoint, then cheapest first; empty if there is no vote.
        rule: `majority`, `always` (UIA) or `never` (text only).
        full: all voters vote on all views.
        audit: share of the views on which all vote despite early exit.
        context_free: one caption prompt for all images (paper C.1).
        caption_words: maximum words that the caption prompt asks for; None: it names no limit.
    """

    captioner: Role | None
    voters: tuple[Role, ...]
    rule: str
    full: bool
    audit: float
    context_free: bool
    caption_words: int | None = None

    @property
    def roles(self) -> tuple[Role, ...]:
        """All roles, in the order in which they see a view."""
        return (*((self.captioner,) if self.captioner else ()), *self.voters)

    def roles_of_stage(self, name: str | None) -> tuple[Role, ...]:
        """Return the roles that one stage plays: those of a checkpoint, named by any of them; all for None."""
        if name is None:
            return self.roles
        pool = next(role.pool for role in self.roles if role.name == name)
        return tuple(role for role in self.roles if role.pool == pool)

    @property
    def stages(self) -> tuple[str, ...]:
        """The first role of each checkpoint, in the order in which a view passes them."""
        return tuple({role.pool: role.name for role in reversed(self.roles)}.values())[::-1]

    def engines(self) -> list[str]:
        """Return one line per role: its engine, with the reason if the profile says `auto`."""
        return engine_lines(self.roles)

    @property
    def names(self) -> frozenset[str]:
        """The names of all roles."""
        return frozenset(role.name for role in self.roles)

    @property
    def key(self) -> str:
        """Hash of everything in the lineup that rows of `captions` depend on."""
        who = [(role.name, role.fingerprint) for role in self.roles]
        facts: tuple[object, ...] = (
            self.captioner is not None, who, self.rule, self.full, self.audit, self.context_free
        )  # fmt: skip
        if self.caption_words is not None:  # without a limit, the key is that of older runs
            facts = (*facts, self.caption_words)
        return content_id(repr(facts))

    def asks_all(self, view_id: str) -> bool:
        """Return whether all voters vote on a view even if its majority is certain."""
        return self.full or audited(view_id, self.audit)


def engine_lines(roles: Sequence[Role]) -> list[str]:
    """Return one line per role: its engine, with the reason if the profile says `auto`."""
    width = max((len(role.name) for role in roles), default=0)
    return [f"{role.name:<{width}}  {role.engine}" for role in roles]


def voters_by_cost(lineup: Lineup) -> tuple[Model, ...]:
    """Return the voters, cheapest first; equal costs keep the order of the profile."""
    return tuple(sorted(lineup.voters, key=call_cost))


def call_cost(model: Model) -> float:
    """Return the relative cost of a call: `cost`, else the bytes of the weights, infinite if neither is known."""
    if model.cost is not None:
        return model.cost
    try:
        size = weight_bytes(model.checkpoint, model.revision)
    except EngineError:  # resolving the role raises it, unless the model is optional
        size = None
    return float("inf") if size is None else float(size)


def captioning_models(profile: Profile) -> list[Model]:
    """Return the models of a caption job: the captioner, then the voters, cheapest first."""
    generated = profile.captions.source == "generated" and profile.votes.rule != "never"
    return [
        *([profile.lineup.captioner] if generated else []),
        *(voters_by_cost(profile.lineup) if profile.votes.rule == "majority" else ()),
    ]


def optional_names(profile: Profile) -> frozenset[str]:
    """Return the names of the voters that a job can do without; see `faults.missing_voter`."""
    return frozenset(voter.name for voter in profile.lineup.voters if profile.faults.missing_voter == "quorum")


def needed_names(lineup: ResolvedLineup, faults: FaultSettings) -> frozenset[str]:
    """Return the names of the roles that a job needs; see `faults.missing_voter`."""
    if faults.missing_voter == "fail":
        return lineup.names
    return frozenset({lineup.captioner.name} if lineup.captioner else ())


def resolve(profile: Profile) -> ResolvedLineup:
    """Resolve the lineup of a profile.

    Raises:
        ProfileError: two voters are one model under one fingerprint.
        EngineError: a checkpoint cannot be found.
    """
    rule = profile.votes.rule
    generated = profile.captions.source == "generated" and rule != "never"
    models = captioning_models(profile)
    one_at_a_time = profile.schedule == "staged" or len({(model.checkpoint, model.revision) for model in models}) == 1
    optional = optional_names(profile)
    roles = [
        _role_of(model.by_itself() if one_at_a_time else model, optional=model.name in optional) for model in models
    ]
    captioner, voters = (roles[0], tuple(roles[1:])) if generated else (None, tuple(roles))
    if captioner is not None:
        # Its checkpoint is loaded anyway, and its stage is the first to see a caption.
        voters = tuple(sorted(voters, key=lambda voter: voter.pool != captioner.pool))
    seen: dict[str, str] = {}
    for voter in voters:
        if other := seen.get(voter.fingerprint):
            raise ProfileError(
                f"voters {other} and {voter.name} have one fingerprint: they are the same model with the same"
                " settings and would vote alike; remove one"
            )
        seen[voter.fingerprint] = voter.name
    instructed = captioner is not None and takes_instructions(captioner.spec)
    context_free = profile.captions.context == "free" or (captioner is not None and not instructed)
    words = profile.captions.words if instructed else None
    full = profile.votes.schedule == "full"
    return ResolvedLineup(captioner, voters, rule, full, profile.votes.audit, context_free, words)


def _role_of(model: Model, *, optional: bool) -> Role:
    """Return the role of a model; that of an optional model also if its checkpoint cannot be found."""
    try:
        return role_of(model)
    except EngineError as error:
        if not optional:
            raise
        log.warning("%s: %s", model.name, error)
    # Its replicas fail with the same error, and the other voters decide.
    spec = replace(model.spec(), engine="transformers" if model.engine == AUTO else model.engine)
    unknown = content_id("unresolved", spec.checkpoint, spec.revision or "")
    return Role(model.name, unknown, unknown[:12], spec, "", model.resources, model.pool)


def role_of(model: Model, lora: LoraShape | None = None, *, asked: bool = True) -> Role:
    """Return the role of one model of a lineup.

    Args:
        model: the model.
        lora: shape of the adapters that it will use; None: no adapter.
        asked: False if its answers are only looked up: then no engine is selected, which would read its settings.

    Raises:
        EngineError: its checkpoint cannot be found, or its engine cannot apply the adapters.
    """
    spec = pinned(model.spec())
    spec, why = choose_engine(spec, lora) if asked else (spec, "")
    pool = content_id(spec.checkpoint, spec.revision or "", spec.engine, spec.dtype, str(spec.context))[:12]
    return Role(model.name, fingerprint(spec), pool, spec, why, model.resources, model.pool)
