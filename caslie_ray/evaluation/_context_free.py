"""The same pictures captioned without their context, to compare with (paper C.1)."""

from __future__ import annotations

from caslie_ray.captioning import CaptionJob
from caslie_ray.profiles import Profile
from caslie_ray.runs import Run

__all__ = ["FOLDER", "caption_context_free"]

FOLDER = "context_free"
"""The folder of a run that is a run of its own: captions and their summary, of the same images and views."""


def caption_context_free(run: Run, profile: Profile, *, quiet: bool = False) -> dict[str, str]:
    """Caption a run's pictures without their context; return the captions by view id.

    The captioner and its settings are the profile's, only the prompt differs. What the folder holds already is
    not computed again.

    Raises:
        EngineError: the captioner cannot be found.
        PoolDown: it cannot be started.
        RunError: the store refuses.
    """
    below = run.below(FOLDER).borrowing(("images", "views"), run)
    free = profile.model_copy(
        update={
            "captions": profile.captions.model_copy(update={"context": "free", "source": "generated"}),
            # Every caption is wanted and none is voted on.
            "votes": profile.votes.model_copy(update={"rule": "always"}),
        }
    )
    CaptionJob(below, free, quiet).execute()
    rows = below.read("captions", ["view_id", "caption"])
    found = zip(rows["view_id"].to_pylist(), rows["caption"].to_pylist(), strict=True)
    return {view_id: caption for view_id, caption in found if caption is not None}
