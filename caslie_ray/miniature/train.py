"""Trains the miniature checkpoints from a seed.

Run as: python -m caslie_ray.miniature.train --work DIR [--models captioner voters base] [--only NAME ...]

Each model resumes from its last state in the work folder, and is written to
`caslie_ray/miniature/checkpoints/NAME/` (or `--out`) when finished.
One thread per model: start it twice, with different `--models`, to use two cores.

Measured on 2 shared cores of an EPYC, each model on one while the other was busy: the captioner 43 minutes
(vision tower 22, words 14, both together 7), a voter 2 to 5, the base 105 (exercises 56, comparisons 32, judgements
17). Two at a time: about 105 minutes.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from shutil import rmtree

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from caslie_ray.miniature._training.base import BasePlan, train_base
from caslie_ray.miniature._training.captioner import CaptionerPlan, captions_by, examples, train_captioner
from caslie_ray.miniature._training.loop import Plan
from caslie_ray.miniature._training.questions import questions
from caslie_ray.miniature._training.voters import VOTERS, balanced_accuracy, train_voter

__all__ = ["CHECKPOINTS", "Plans", "main"]

CHECKPOINTS = Path(__file__).parent / "checkpoints"
GROUPS = ("captioner", "voters", "base")
log = logging.getLogger(__name__)


_CAPTIONER, _BASE = CaptionerPlan(), BasePlan()


@dataclass(frozen=True, slots=True)
class Plans:
    """The schedule of each model's training, by phase."""

    captioner: CaptionerPlan = _CAPTIONER
    voters: Mapping[str, Plan] = field(default_factory=lambda: {name: recipe.plan for name, recipe in VOTERS.items()})
    base: BasePlan = _BASE

    def scaled(self, factor: float) -> "Plans":
        """Return the same plans with their steps scaled, at least 2 each."""

        def part(plan: Plan) -> Plan:
            return replace(plan, steps=max(2, round(plan.steps * factor)))

        captioner = self.captioner
        return Plans(
            captioner=CaptionerPlan(
                tower=part(captioner.tower), words=part(captioner.words), whole=part(captioner.whole)
            ),
            voters={name: part(plan) for name, plan in self.voters.items()},
            base=BasePlan(part(self.base.exercises), part(self.base.comparisons), part(self.base.judgements)),
        )


def save(model: PreTrainedModel, preprocessor: PreTrainedTokenizerBase | ProcessorMixin, folder: Path) -> None:
    """Write a float16 checkpoint that `from_pretrained` loads, replacing an older one."""
    fresh = folder.with_name(folder.name + ".part")
    rmtree(fresh, ignore_errors=True)
    model.half().save_pretrained(fresh)
    preprocessor.save_pretrained(fresh)
    rmtree(folder, ignore_errors=True)
    fresh.replace(folder)
    log.info("%s: %.2f MB", folder, sum(f.stat().st_size for f in folder.iterdir()) / 1e6)


def _captioner(plans: Plans, seed: int, work: Path, out: Path) -> None:
    model, processor = train_captioner(plans.captioner, seed, work)
    fresh = examples(Random(seed + 77), 96, combinations="all", free=0.0)
    written = captions_by(model, processor, fresh)
    right = sum(a == e.caption for a, e in zip(written, fresh, strict=True))
    log.info("captioner: %d of %d fresh captions match exactly", right, len(fresh))
    save(model, processor, out / "captioner")


def _voter(name: str, plans: Plans, seed: int, work: Path, out: Path) -> None:
    recipe = VOTERS[name]
    model, tokenizer = train_voter(name, recipe, plans.voters[name], seed, work)
    fresh = questions(Random(seed + 77), 700, {}, combinations="all")
    log.info("%s: balanced accuracy %.3f", name, balanced_accuracy(model, tokenizer, recipe.style, fresh))
    save(model, tokenizer, out / f"voter-{name}")


def _base(plans: Plans, seed: int, work: Path, out: Path) -> None:
    model, tokenizer = train_base(plans.base, seed, work)
    save(model, tokenizer, out / "unim3-base")


def _jobs(groups: Sequence[str], only: Sequence[str]) -> Iterator[Callable[[Plans, int, Path, Path], None]]:
    if "captioner" in groups:
        yield _captioner
    if "voters" in groups:
        for name in only or VOTERS:
            yield partial(_voter, name)
    if "base" in groups:
        yield _base


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the selected models. Returns the exit code: 0, or 2 for wrong arguments (from argparse)."""
    parser = argparse.ArgumentParser(prog="python -m caslie_ray.miniature.train", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--models", nargs="+", choices=GROUPS, default=GROUPS, help="which models to train")
    parser.add_argument("--only", nargs="+", choices=tuple(VOTERS), default=[], help="train only these voters")
    parser.add_argument("--work", type=Path, required=True, help="folder of resumable training states")
    parser.add_argument("--out", type=Path, default=CHECKPOINTS, help="folder of finished checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="factor of the training steps, for trial runs")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    torch.set_num_threads(1)
    plans = Plans() if chosen.scale == 1.0 else Plans().scaled(chosen.scale)
    chosen.out.mkdir(parents=True, exist_ok=True)
    for job in _jobs(chosen.models, chosen.only):
        job(plans, chosen.seed, chosen.work, chosen.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
