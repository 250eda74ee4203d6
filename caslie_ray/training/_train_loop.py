"""The training loop around optimizer steps: curves, validations, checkpoints, early stopping, the finished model."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray.train

from caslie_ray.engines.trainable import Turns
from caslie_ray.hashing import content_id
from caslie_ray.storage.run import Run
from caslie_ray.training._checkpoints import save_adapter, save_checkpoint
from caslie_ray.training._examples import Examples
from caslie_ray.training._optimizer_steps import Learner, Step
from caslie_ray.training._spec import TrainingSpec
from caslie_ray.training._tracking import Tracking
from caslie_ray.training._validation import mean_primary

__all__ = ["TrainingLoop", "is_better"]


class TrainingLoop:
    """State of one training. All workers have the same; rank 0 writes.

    Args:
        run: where the model is written.
        spec: what is trained.
        folder: the model's folder, in the run.
        digest: hash of the examples.
        actor: the progress actor.
        learner: makes the steps.
        turns: tokenizes prompts and reads answers.
        held_back: the validation samples.
    """

    def __init__(
        self,
        run: Run,
        spec: TrainingSpec,
        folder: str,
        digest: str,
        actor: Any,
        learner: Learner,
        turns: Turns,
        held_back: Examples,
    ) -> None:
        self._run, self._actor = run, actor
        self._spec, self._folder, self._digest = spec, folder, digest
        self._started = time.monotonic()
        self._seconds_before = 0.0
        self._learner = learner
        self._turns = turns
        self._held_back = held_back
        self._settings = spec.settings
        self.step = 0
        self._curve: list[dict[str, float]] = []
        self._validations: list[dict[str, float]] = []
        self._best: dict[str, float] | None = None
        self._worse = 0
        self._cut = self._captions_cut = self._too_long = 0
        self._validated_after = self._settings.validation_steps(learner.steps)
        self._digests: dict[str, str] = {}
        self._checkpoints: list[int] = []
        self._noticed = False
        self._tracking: Tracking | None = None
        if not learner.rank:
            self._tracking = Tracking(run, folder, spec.name, self._settings.trackers)

    @property
    def is_finished(self) -> bool:
        """Whether no step is left, or training stops early."""
        patience = self._settings.patience
        return self.step >= self._learner.steps or (patience is not None and self._worse >= patience)

    def resume(self, state: Mapping[str, Any]) -> None:
        """Continue from the state of a checkpoint."""
        self.step = state["step"]
        self._curve, self._validations = state["curve"], state["validations"]
        self._best, self._worse, self._digests = state["best"], state["worse"], state["digests"]
        self._seconds_before, self._checkpoints = state["seconds"], state["checkpoints"]
        self._cut, self._too_long = state["cut"], state["too_long"]
        self._captions_cut = state.get("captions_cut", 0)  # missing in older checkpoints
        for row in self._curve:
            self._track("train", row)
        for row in self._validations:
            self._track("validation", row)

    def after(self, done: Step) -> None:
        """Record a step; validate and report a checkpoint if it is time to."""
        self.step = done.step + 1
        if done.tokens:
            self._curve.append({"step": done.step, "loss": done.loss, "rate": done.rate, "norm": done.norm})
            self._track("train", self._curve[-1])
        if done.step < self._learner.epoch_steps:  # count each sample once
            self._cut += done.cut
            self._captions_cut += done.captions_cut
            self._too_long += done.left_out
        if not self._learner.rank:
            self._actor.report.remote(self._spec.name, self.step, done.loss)
        if len(self._held_back) and self.step in self._validated_after:
            self._validate()
        is_new_notice = done.notice and not self._noticed
        self._noticed = done.notice
        if is_new_notice or self.is_finished or self.step % self._settings.checkpoint_steps == 0:
            self._report()

    def finish(self) -> None:
        """Write the last adapter, and the record that marks the model as finished."""
        if self._learner.rank:
            return
        self._put_adapter("last")
        if self._tracking is not None:
            self._tracking.close()
        self._run.write_json(f"{self._folder}/training.json", self._record())

    @property
    def _seconds(self) -> float:
        """Seconds spent on this model, those before its last checkpoint included."""
        return round(self._seconds_before + time.monotonic() - self._started, 2)

    def _track(self, kind: str, row: Mapping[str, float]) -> None:
        if self._tracking is not None:
            values = {f"{kind}/{name}": value for name, value in row.items() if name != "step"}
            self._tracking.log(values, int(row["step"]))

    def _validate(self) -> None:
        found = {"step": float(self.step)}
        loss = self._learner.validation_loss(self._held_back)
        if loss is not None:
            found["loss"] = loss
        # With a sharded base every pass is collective, and workers generate different numbers of tokens.
        if not self._settings.shard:
            found["metric"] = mean_primary(
                self._learner.model, self._turns, self._held_back, rows=self._settings.micro_batch,
                new_tokens=self._spec.base_spec.max_new_tokens, rank=self._learner.rank, world=self._learner.world,
            )  # fmt: skip
        self._validations.append(found)
        self._track("validation", found)
        if self._best is None or is_better(found, self._best):
            self._best, self._worse = found, 0
            if not self._learner.rank:
                self._put_adapter("best")
        else:
            self._worse += 1

    def _report(self) -> None:
        """Report a checkpoint; every worker calls this at the same step."""
        self._checkpoints.append(self.step)
        metrics = {"step": self.step, "steps": self._learner.steps}
        if self._learner.rank:
            ray.train.report(metrics)
            return
        if self._tracking is not None:
            self._tracking.flush()
        with tempfile.TemporaryDirectory() as folder:
            state = {"base": self._spec.base, "folder": self._folder, **self._state()}
            save_checkpoint(self._learner.model, self._learner.optimizer, Path(folder), state)
            # Ray Train writes checkpoints itself, without checking the lease.
            self._run.check_lease()
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step, "curve": self._curve, "validations": self._validations, "best": self._best,
            "worse": self._worse, "digests": self._digests, "seconds": self._seconds,
            "checkpoints": self._checkpoints, "cut": self._cut, "captions_cut": self._captions_cut,
            "too_long": self._too_long,
        }  # fmt: skip

    def _record(self) -> dict[str, Any]:
        spec = self._spec
        return {
            "model": spec.name, "variant": spec.variant, "tasks": list(spec.tasks), "base": spec.base,
            "checkpoint": spec.base_spec.checkpoint, "examples": self._digest, "steps": self.step,
            "seconds": self._seconds, "checkpoints": self._checkpoints, "adapters": self._digests, "best": self._best,
            "curve": self._curve, "validations": self._validations, "cut": self._cut,
            "captions_cut": self._captions_cut, "too_long": self._too_long,
        }  # fmt: skip

    def _put_adapter(self, name: str) -> None:
        """Write the adapter into the run, its settings last: a folder without them is no adapter."""
        run, spec, place = self._run, self._spec, f"{self._folder}/{name}"
        with tempfile.TemporaryDirectory() as folder:
            about = {"base": spec.base, "checkpoint": spec.base_spec.checkpoint}
            save_adapter(self._learner.model, Path(folder), about)
            self._digests[name] = content_id((Path(folder) / "adapter_model.safetensors").read_bytes())
            files = sorted(Path(folder).iterdir(), key=lambda file: file.name == "adapter_config.json")
            for file in files:
                run.put(run.path(place, file.name), file.read_bytes())


def is_better(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Return whether one validation is better than another: lower loss, then higher metric.

    On the few samples of a validation the metric is noisy, so it only breaks ties.
    """

    def worth(found: Mapping[str, float]) -> tuple[float, float]:
        return -round(found.get("loss", math.inf), 4), found.get("metric", -math.inf)

    return worth(one) > worth(other)
