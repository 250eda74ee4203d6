"""CPU time per view, split by component.

Each component is measured alone, as CPU time of a process with all its threads, over all views:

- reading: views and images are read from the run as in a job.
- tokenizing: each prompt of each model is rendered in its chat template and tokenized; no weights are loaded.
- decoding: each image is decoded, resized and normalized: `RequestPreparer.prepare` of the captioner's requests,
  minus the tokenization of their prompts.
- model: the CPU time of the bare engines' calls, minus tokenizing and decoding, which they include.
- writing: finished rows are written to the run as in a job.
- ray: the CPU time of all processes of this job from its first row to its last, per row, minus all of the above: Ray's
  own processes, transfer of rows between processes, and the job's own code.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from caslie_ray.benchmark._phases import requests_of
from caslie_ray.benchmark._views import images_of, views_of
from caslie_ray.captioning import caption_rows
from caslie_ray.engines.request_preparation import RequestPreparer
from caslie_ray.profiles import load_profile
from caslie_ray.roles import ResolvedLineup, resolve
from caslie_ray.storage.run import open_run

__all__ = ["Parts", "measure_parts", "split"]

_BLOCK = 64


class Parts(NamedTuple):
    """CPU milliseconds per view of the components that are measured alone."""

    reading: float
    tokenizing: float
    decoding: float
    writing: float


def measure_parts(profile: str, views: str, given: str) -> Parts:
    """Measure in this process, which must be otherwise idle.

    Args:
        profile: path of the profile.
        views: URI of the run with the views.
        given: URI of the run with the same views, each with a caption to vote on.

    Raises:
        RunError: a table cannot be read.
        EngineError: a checkpoint cannot be read.
    """
    import torch

    torch.set_num_threads(1)  # spinning threads would count as work
    settings = ["schedule=staged", "votes.rule=majority", "votes.schedule=full"]
    lineup = resolve(load_profile(profile, [*settings, "captions.source=generated"]))
    voting = resolve(load_profile(profile, [*settings, "captions.source=dataset"]))
    count = len(views_of(open_run(views)))
    tokenizing = decoding = 0.0
    for rules, run in ((lineup, views), (voting, given)):
        tokens, images = _preparing(rules, run)
        tokenizing += tokens
        decoding += images
    seconds = (_reading(views), tokenizing, decoding, _writing(given))
    return Parts(*(1000 * one / count for one in seconds))


def split(parts: Parts, model_calls_ms: float, job_ms: float | None) -> dict[str, float | None]:
    """Return CPU milliseconds per view by component.

    Args:
        parts: the components measured alone.
        model_calls_ms: CPU milliseconds per view of the bare engines' calls.
        job_ms: CPU milliseconds per view of all processes of the job; None if unknown.
    """
    model = model_calls_ms - parts.tokenizing - parts.decoding
    known = parts.reading + model_calls_ms + parts.writing
    components: dict[str, float | None] = {
        "reading": parts.reading, "tokenizing": parts.tokenizing, "decoding": parts.decoding, "model": model,
        "writing": parts.writing, "ray": None if job_ms is None else job_ms - known, "job": job_ms,
    }  # fmt: skip
    return {name: None if value is None else round(value, 3) for name, value in components.items()}


def _cpu(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _reading(uri: str) -> float:
    """Return the CPU seconds to read views and images, with a warm file cache."""
    run = open_run(uri)

    def read() -> None:
        for name in run.by_partition("views"):
            run.read("views", partition=name).to_pylist()
            run.read("images", partition=name).to_pylist()

    read()
    return _cpu(read)


def _preparing(lineup: ResolvedLineup, uri: str) -> tuple[float, float]:
    """Return the CPU seconds to tokenize the prompts of a lineup's models, and to decode images for the captioner."""
    run = open_run(uri)
    views, images = views_of(run), images_of(run)
    tokenizing = decoding = 0.0
    roles = [lineup.captioner] if lineup.captioner is not None else list(lineup.voters)
    for role in roles:
        requests = requests_of(views, images, lineup, role)
        if not requests:
            continue
        writes = role is lineup.captioner
        budget = role.spec.generate_budget if writes else role.spec.choose_budget
        preparer = RequestPreparer(role.spec)
        preparer.prepare(requests[0], budget)
        tokens = _cpu(lambda p=preparer, r=requests, b=budget: [p.tokenize(one, b) for one in r])  # type: ignore[misc]
        tokenizing += tokens
        if writes:
            both = _cpu(lambda p=preparer, r=requests, b=budget: [p.prepare(one, b) for one in r])  # type: ignore[misc]
            decoding += max(0.0, both - tokens)
    return tokenizing, decoding


def _writing(uri: str) -> float:
    """Return the CPU seconds to write one finished row per view, in the job's block size."""
    votes = [{"voter": "voter", "answer": "yes", "p_yes": 0.9, "key": "0" * 32, "cut": False, "tokens": 100}]
    rows = [
        {"view_id": view.view_id, "image_id": view.image_id, "caption": view.given_caption or "", "votes": votes,
         "verdict": True, "calls": 2, "cut": False, "error": None, "retryable": False, "caption_key": "0" * 32,
         "caption_cut": False, "caption_tokens": 100, "caption_truncated": False}
        for view in views_of(open_run(uri))
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = open_run(str(Path(folder) / "run"))

        def write() -> None:
            for at in range(0, len(rows), _BLOCK):
                run.write("captions", f"0-{at:08d}", caption_rows(rows[at : at + _BLOCK]))

        write()
        return _cpu(write)
