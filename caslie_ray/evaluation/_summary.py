"""The figures of an evaluation, with their intervals, as `RUN/summary/evaluate.json` holds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

from caslie_ray.evaluation._measures import VERDICT, name_of
from caslie_ray.evaluation._sums import Bootstrap, Estimate, Sums, Values
from caslie_ray.miniature.catalogue import VALUES
from caslie_ray.miniature.drawing import KINDS
from caslie_ray.tasks import SPLITS, TASKS

__all__ = ["describe"]

_USEFULNESS = ("useful", "useless", "misleading")
_ERRORS = ("attribute missing", "attribute hallucination", "unhelpful caption used", "helpful caption missing")
Sum = Callable[[str], Values]


def describe(sums: Sums, sets: Sequence[Sequence[str]], resamples: int) -> dict[str, Any]:
    """Return all figures. Each is a mapping of value, low, high (95%) and n, the views that it is of."""
    boot = Bootstrap(sums, resamples)
    figures: dict[str, Any] = {
        "used": boot.rate("views/used", "views").as_dict(),
        "failed": boot.rate("views/failed", "views").as_dict(),
        "agreement": _agreement(sums, boot),
        "truth": None,
    }
    if sums.total("known"):
        figures["truth"] = {
            "held_out": boot.rate("known/held out", "known").as_dict(),
            "usefulness": {name: boot.rate(f"known/{name}", "known").as_dict() for name in _USEFULNESS},
            "pictures": {kind: boot.rate(f"known/kind/{kind}", "known").as_dict() for kind in KINDS},
            "captions": {kind: _captions(sums, boot, kind) for kind in KINDS},
            "context": _context(sums, boot),
            "verdicts": _verdicts(sums, boot, sets),
            "errors": {name: boot.rate(f"error/{name}", "known").as_dict() for name in _ERRORS},
        }
    return figures


def _captions(sums: Sums, boot: Bootstrap, kind: str) -> dict[str, Any]:
    """What captions of one kind of picture name, against what the picture shows."""
    head = f"caption/{kind}"
    found: dict[str, Any] = {
        "described_as_a_product": boot.rate(f"{head}/described as a product", f"{head}/views").as_dict(),
        "words": boot.rate(f"{head}/words", f"{head}/views").as_dict(),
    }
    if kind not in ("informative", "wrong"):
        found["names_an_attribute"] = boot.rate(f"{head}/names an attribute", f"{head}/views").as_dict()
        return found

    def asked(group: str) -> dict[str, Any]:
        return boot.rate(f"caption/{group}/asked and right", f"caption/{group}/asked").as_dict()

    found["asked_and_right"] = asked(kind)
    found["asked_and_right_by_attribute"] = {name: asked(f"{kind}/{name}") for name in VALUES}
    found["named_rightly_by_attribute"] = {
        name: boot.rate(f"{head}/{name}/named rightly", f"{head}/{name}/named").as_dict() for name in VALUES
    }
    found["asked_and_right_by_task"] = {code: asked(f"{kind}/{code}") for code in _present(sums, head, _codes())}
    found["asked_and_right_by_split"] = {split: asked(f"{kind}/{split}") for split in _present(sums, head, SPLITS)}
    return found


def _context(sums: Sums, boot: Bootstrap) -> dict[str, Any] | None:
    """Captions written with their context beside captions of the same pictures without one (C.1)."""
    if not sums.total("context/views"):
        return None

    def gap(of: Sum) -> Values:
        gained: Values = (of("context/conditioned/right") - of("context/free/right")) / of("context/views")
        return gained

    return {
        **{
            name: {
                "asked_and_right": boot.rate(f"context/{name}/right", "context/views").as_dict(),
                "words": boot.rate(f"context/{name}/words", "context/views").as_dict(),
            }
            for name in ("conditioned", "free")
        },
        "gap": boot.estimate(gap, "context/views").as_dict(),
    }


def _balanced(judge: str) -> Callable[[Sum], Values]:
    def balanced(of: Sum) -> Values:
        yes = of(f"{judge}/helps/yes") / of(f"{judge}/helps")
        no = of(f"{judge}/does not/no") / of(f"{judge}/does not")
        mean: Values = (yes + no) / 2
        return mean

    return balanced


def _judge(boot: Bootstrap, judge: str) -> dict[str, Any]:
    return {
        "balanced_accuracy": boot.estimate(
            _balanced(judge), f"{judge}/views", (f"{judge}/helps", f"{judge}/does not")
        ).as_dict(),
        "helpful_lost": boot.rate(f"{judge}/helps/no", f"{judge}/helps").as_dict(),
        "unhelpful_kept": boot.rate(f"{judge}/does not/yes", f"{judge}/does not").as_dict(),
    }


def _verdicts(sums: Sums, boot: Bootstrap, sets: Sequence[Sequence[str]]) -> dict[str, Any]:
    """How often the verdict, each voter and each set of voters say rightly whether a caption helps."""
    verdict = _judge(boot, VERDICT)
    found: dict[str, Any] = {
        "captions_that_help": boot.rate("views with a caption/helps", "views with a caption").as_dict(),
        "verdict": verdict,
        "verdict_by_task": {
            code: _judge(boot, f"{VERDICT}/{code}") for code in _present(sums, VERDICT, _codes(), "/views")
        },
        "verdict_by_split": {
            split: _judge(boot, f"{VERDICT}/{split}") for split in _present(sums, VERDICT, SPLITS, "/views")
        },
        "voters": {},
        "majorities": [],
        "mean_voter": None,
        "use_it_always": None,
    }
    voters = sorted({name.split("/")[1] for name in sums.names("voter/") if name.endswith("/helps")})
    if not voters:
        return found
    found["voters"] = {name: _judge(boot, f"voter/{name}") for name in voters}
    found["use_it_always"] = _judge(boot, "use it always")
    found["mean_voter"] = _mean_voter(boot, voters).as_dict()
    for names in sets:
        judge = name_of(names)

        def above(of: Sum, judge: str = judge, names: Sequence[str] = names) -> Values:
            gained: Values = _balanced(judge)(of) - _mean_balanced(names)(of)
            return gained

        found["majorities"].append(
            {
                "voters": list(names),
                **_judge(boot, judge),
                "mean_voter": _mean_voter(boot, names).as_dict(),
                "above_the_mean_voter": boot.estimate(above, f"{judge}/views").as_dict(),
                "mean_pairwise_disagreement": _disagreement(sums, boot, names).as_dict(),
            }
        )
    return found


def _mean_voter(boot: Bootstrap, names: Sequence[str]) -> Estimate:
    return boot.estimate(_mean_balanced(names), "use it always/views")


def _mean_balanced(names: Sequence[str]) -> Callable[[Sum], Values]:
    return lambda of: _mean([_balanced(f"voter/{name}")(of) for name in names])


def _mean(parts: Sequence[Values]) -> Values:
    total: Values = sum(parts[1:], start=parts[0]) / len(parts)
    return total


def _agreement(sums: Sums, boot: Bootstrap) -> dict[str, Any] | None:
    """On what the voters agree, over the views on which all were asked; None where fewer than two vote."""
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
        "mean_pairwise_disagreement": _disagreement(sums, boot, voters).as_dict(),
        "fleiss_kappa": boot.estimate(_fleiss, "all voted").as_dict(),
    }


def _disagreement(sums: Sums, boot: Bootstrap, names: Sequence[str]) -> Estimate:
    pairs = [f"pair/{one}/{other}" for one, other in combinations(sorted(names), 2)]
    known = [pair for pair in pairs if sums.total(f"{pair}/views")]
    if not known:
        return Estimate(None, None, None, 0)
    return boot.estimate(lambda of: _mean([of(f"{pair}/differ") / of(f"{pair}/views") for pair in known]), "all asked")


def _cohen(pair: str) -> Callable[[Sum], Values]:
    def kappa(of: Sum) -> Values:
        views = of(f"{pair}/views")
        first, second = of(f"{pair}/yes of first") / views, of(f"{pair}/yes of second") / views
        chance = first * second + (1 - first) * (1 - second)
        found: Values = 1 - of(f"{pair}/differ") / views / (1 - chance)
        return found

    return kappa


def _fleiss(of: Sum) -> Values:
    share = of("all voted/yes") / of("all voted/votes")
    chance = share**2 + (1 - share) ** 2
    found: Values = (of("all voted/agreeing pairs") / of("all voted/pairs") - chance) / (1 - chance)
    return found


def _codes() -> list[str]:
    return [task.code for task in TASKS.values()]


def _present(sums: Sums, head: str, names: Sequence[str], tail: str = "/asked") -> list[str]:
    return [name for name in names if sums.total(f"{head}/{name}{tail}")]
