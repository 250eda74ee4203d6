"""Figures of captions and verdicts against the truth of a drawn data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from caslie_ray.evaluation.captions.agreement import mean_disagreement, mean_of
from caslie_ray.evaluation.captions.bootstrap import Bootstrap, Estimate, Statistic, SumOf
from caslie_ray.evaluation.captions.drawn_truth import ATTRIBUTES, IMAGE_KINDS
from caslie_ray.evaluation.captions.sums import Sums, Values
from caslie_ray.evaluation.captions.truth_counts import VERDICT, name_of
from caslie_ray.tasks import SPLITS, TASKS

__all__ = ["describe_truth"]

_USEFULNESS = ("useful", "useless", "misleading")
_ERRORS = ("attribute missing", "attribute hallucination", "unhelpful caption used", "helpful caption missing")


def describe_truth(sums: Sums, boot: Bootstrap, sets: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return the figures of views whose truth is known, in the form of `describe`."""
    return {
        "held_out": boot.rate("known/held out", "known").as_dict(),
        "usefulness": {name: boot.rate(f"known/{name}", "known").as_dict() for name in _USEFULNESS},
        "pictures": {kind: boot.rate(f"known/kind/{kind}", "known").as_dict() for kind in IMAGE_KINDS},
        "captions": {kind: _captions(sums, boot, kind) for kind in IMAGE_KINDS},
        "context": _context(sums, boot),
        "verdicts": _verdicts(sums, boot, sets),
        "errors": {name: boot.rate(f"error/{name}", "known").as_dict() for name in _ERRORS},
    }


def _captions(sums: Sums, boot: Bootstrap, kind: str) -> dict[str, Any]:
    """Return which attributes the captions of one kind of image name, and how often rightly."""
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
    found["asked_and_right_by_attribute"] = {name: asked(f"{kind}/{name}") for name in ATTRIBUTES}
    found["named_rightly_by_attribute"] = {
        name: boot.rate(f"{head}/{name}/named rightly", f"{head}/{name}/named").as_dict() for name in ATTRIBUTES
    }
    found["asked_and_right_by_task"] = {code: asked(f"{kind}/{code}") for code in _present(sums, head, _codes())}
    found["asked_and_right_by_split"] = {split: asked(f"{kind}/{split}") for split in _present(sums, head, SPLITS)}
    return found


def _context(sums: Sums, boot: Bootstrap) -> dict[str, Any] | None:
    """Compare captions with and without context of the same images (C.1)."""
    if not sums.total("context/views"):
        return None

    def gap(of: SumOf) -> Values:
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


def _balanced(judge: str) -> Statistic:
    def balanced(of: SumOf) -> Values:
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
    """Return how often the verdict, each voter and each set of voters judge rightly whether a caption helps."""
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

        def above(of: SumOf, judge: str = judge, names: Sequence[str] = names) -> Values:
            gained: Values = _balanced(judge)(of) - _mean_balanced(names)(of)
            return gained

        found["majorities"].append(
            {
                "voters": list(names),
                **_judge(boot, judge),
                "mean_voter": _mean_voter(boot, names).as_dict(),
                "above_the_mean_voter": boot.estimate(above, f"{judge}/views").as_dict(),
                "mean_pairwise_disagreement": mean_disagreement(sums, boot, names).as_dict(),
            }
        )
    return found


def _mean_voter(boot: Bootstrap, names: Sequence[str]) -> Estimate:
    return boot.estimate(_mean_balanced(names), "use it always/views")


def _mean_balanced(names: Sequence[str]) -> Statistic:
    return lambda of: mean_of([_balanced(f"voter/{name}")(of) for name in names])


def _codes() -> list[str]:
    return [task.code for task in TASKS.values()]


def _present(sums: Sums, head: str, names: Sequence[str], tail: str = "/asked") -> list[str]:
    return [name for name in names if sums.total(f"{head}/{name}{tail}")]
