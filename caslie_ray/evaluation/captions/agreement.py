"""Agreement of the voters, over the views on which all voters were asked."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from caslie_ray.evaluation.captions.bootstrap import Bootstrap, Estimate, Statistic, SumOf
from caslie_ray.evaluation.captions.sums import Sums, Values

__all__ = ["describe_agreement", "mean_disagreement", "mean_of"]


def describe_agreement(sums: Sums, boot: Bootstrap) -> dict[str, Any] | None:
    """Return yes rates, disagreement and kappas; None if fewer than two voters vote."""
    voters = sorted({name.split("/")[1] for name in sums.names("voter/") if name.endswith("/votes")})
    if len(voters) < 2:
        return None
    pairs = [
        {
            "voters": [one, other],
            "disagreement": boot.rate(f"pair/{one}/{other}/differ", f"pair/{one}/{other}/views").as_dict(),
            "cohen_kappa": boot.estimate(_cohen(f"pair/{one}/{other}"), f"pair/{one}/{other}/views").as_dict(),
        }
        for one, other in combinations(voters, 2)
        if sums.total(f"pair/{one}/{other}/views")
    ]
    return {
        "views": round(sums.total("all asked")),
        "unanimous": boot.rate("all voted/unanimous", "all voted").as_dict(),
        "yes_rates": {name: boot.rate(f"voter/{name}/yes", f"voter/{name}/votes").as_dict() for name in voters},
        "pairs": pairs,
        "mean_pairwise_disagreement": mean_disagreement(sums, boot, voters).as_dict(),
        "fleiss_kappa": boot.estimate(_fleiss, "all voted").as_dict(),
    }


def mean_disagreement(sums: Sums, boot: Bootstrap, names: Sequence[str]) -> Estimate:
    """Return the share of views on which two voters differ, averaged over the pairs of some voters."""
    pairs = [f"pair/{one}/{other}" for one, other in combinations(sorted(names), 2)]
    known = [pair for pair in pairs if sums.total(f"{pair}/views")]
    if not known:
        return Estimate(None, None, None, 0)
    return boot.estimate(
        lambda of: mean_of([of(f"{pair}/differ") / of(f"{pair}/views") for pair in known]), "all asked"
    )


def mean_of(parts: Sequence[Values]) -> Values:
    """Return the elementwise mean."""
    total: Values = sum(parts[1:], start=parts[0]) / len(parts)
    return total


def _cohen(pair: str) -> Statistic:
    def kappa(of: SumOf) -> Values:
        views = of(f"{pair}/views")
        first, second = of(f"{pair}/yes of first") / views, of(f"{pair}/yes of second") / views
        chance = first * second + (1 - first) * (1 - second)
        found: Values = 1 - of(f"{pair}/differ") / views / (1 - chance)
        return found

    return kappa


def _fleiss(of: SumOf) -> Values:
    share = of("all voted/yes") / of("all voted/votes")
    chance = share**2 + (1 - share) ** 2
    found: Values = (of("all voted/agreeing pairs") / of("all voted/pairs") - chance) / (1 - chance)
    return found
