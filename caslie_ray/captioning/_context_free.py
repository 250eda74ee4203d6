"""Captions of the same images without context, for comparison (paper C.1)."""

from __future__ import annotations

from caslie_ray.captioning._job import CaptionJob
from caslie_ray.profiles import Profile
from caslie_ray.storage.run import Run
from caslie_ray.storage.schemas import CONTEXT_FREE_FOLDER

__all__ = ["CONTEXT_FREE_FOLDER", "context_free_job", "context_free_run"]


def context_free_run(run: Run) -> Run:
    """Return the run of the context-free captions, which shares samples, images and views with the given run."""
    return run.below(CONTEXT_FREE_FOLDER).with_shared_tables(("samples", "images", "views"), run)


def context_free_job(run: Run, profile: Profile, *, quiet: bool = False) -> CaptionJob:
    """Return the job that captions a run's images without context.

    Captioner and settings are those of the profile; only the prompt differs. Voters are asked only if
    `experiments.context_free` is set; otherwise every caption is used without votes.

    Raises:
        EngineError: a checkpoint cannot be found.
        RunError: the run has no views, or the store refuses.
    """
    votes = profile.votes if profile.experiments.context_free else profile.votes.model_copy(update={"rule": "always"})
    captions = profile.captions.model_copy(update={"context": "free", "source": "generated"})
    free = profile.model_copy(update={"captions": captions, "votes": votes})
    return CaptionJob(context_free_run(run), free, quiet)
