"""Logs training curves to TensorBoard, and to MLflow and W&B if a profile names them."""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tensorboardX import SummaryWriter

from caslie_ray.storage.run import Run
from caslie_ray.training._errors import TrainingError

__all__ = ["Tracking", "import_tracker"]


class _Tracker(Protocol):
    def log(self, values: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


def import_tracker(name: str) -> Any:
    """Return a tracker's package.

    Raises:
        TrainingError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise TrainingError(
            f"training.trackers names {name}, which is not installed: pip install 'caslie_ray[{name}]'"
        ) from error


class Tracking:
    """Logs scalars by step, on rank 0.

    Args:
        run: contains the model's folder, where TensorBoard's files are written.
        folder: the model's folder.
        name: the model's name.
        trackers: trackers other than TensorBoard.

    Raises:
        TrainingError: a tracker is not installed.
    """

    def __init__(self, run: Run, folder: str, name: str, trackers: Sequence[str]) -> None:
        self._run, self._folder = run, f"{folder}/tensorboard"
        self._local = Path(tempfile.mkdtemp(prefix="caslie-tensorboard-"))
        self._board = SummaryWriter(str(self._local))
        self._others: list[_Tracker] = [_MAKERS[tracker](folder, name) for tracker in trackers]

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log scalars of a step."""
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        for other in self._others:
            other.log(values, step)

    def flush(self) -> None:
        """Write what was logged into the run.

        Raises:
            RunError: the store refuses.
        """
        self._board.flush()
        for file in self._local.iterdir():
            self._run.put(self._run.path(self._folder, file.name), file.read_bytes())

    def close(self) -> None:
        """Write the rest, and close all trackers."""
        self._board.close()
        self.flush()
        shutil.rmtree(self._local, ignore_errors=True)
        for other in self._others:
            other.close()


class _MLflow:
    def __init__(self, folder: str, name: str) -> None:
        self._mlflow = import_tracker("mlflow")
        self._mlflow.start_run(run_name=name, tags={"folder": folder})

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self._mlflow.end_run()


class _Wandb:
    def __init__(self, folder: str, name: str) -> None:
        self._run = import_tracker("wandb").init(
            name=name, config={"folder": folder}, id=folder.rpartition("-")[2], resume="allow"
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


_MAKERS: Mapping[str, Any] = {"mlflow": _MLflow, "wandb": _Wandb}
