"""Ray's own batch inference, `ray.data.llm`, on the same requests and the same vLLM settings.

Follows its documentation: a `vLLMEngineProcessorConfig`, `build_processor` with a `preprocess` and a `postprocess`,
rows in memory. It keeps no ledger and writes nothing; time is measured until rows come out. The benchmark runs it as
``python -m caslie_ray.benchmark._ray_llm SPEC RESULT``, see `RayLlmTask`.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from caslie_ray.benchmark._caption_job import environment, terminate
from caslie_ray.benchmark._phases import requests_of
from caslie_ray.benchmark._resource_usage import ProcessTree, ResourceMonitor
from caslie_ray.benchmark._timing import Timing, steady_seconds
from caslie_ray.benchmark._views import images_of, questions_of, views_of
from caslie_ray.engines import Request
from caslie_ray.errors import EngineError
from caslie_ray.profiles import Model, Profile, load_profile
from caslie_ray.quality import CHOICES
from caslie_ray.roles import Role, resolve, role_of
from caslie_ray.storage.run import open_run

__all__ = ["RayLlmTask", "models_of", "refusal", "root_cause", "run_ray_llm"]

_BATCH = 32
_GONE_S = 60.0
_CHAINED = re.compile(r"\n\n(?:The above exception was the direct cause|During handling of the above exception)")
_FRAME = re.compile(r"  |\S*ray::")  # in a traceback: an indented line, or the name of its process


@dataclass(frozen=True)
class RayLlmTask:
    """What to measure.

    Attributes:
        profile: path of the profile.
        measure: captioning, voting or prediction.
        run: URI of the run with the inputs.
    """

    profile: str
    measure: str
    run: str


def models_of(profile: Profile, measure: str) -> list[Model]:
    """Return the models of a measure."""
    lineup = profile.lineup
    models: dict[str, list[Model]] = {
        "captioning": [lineup.captioner],
        "voting": list(lineup.voters),
        "prediction": [lineup.base],
    }
    return models[measure]


def refusal(profile: Profile, measure: str) -> str:
    """Return why `ray.data.llm` cannot run a measure; empty if it can."""
    if measure == "chain":
        return "one processor serves one model; see captioning and voting"
    others = [model.name for model in models_of(profile, measure) if model.engine not in ("vllm", "auto")]
    if others:
        return f"it runs vLLM only, and the profile has {', '.join(others)} on another engine"
    return ""


def run_ray_llm(task: RayLlmTask, folder: Path) -> Timing:
    """Measure in a subprocess.

    Args:
        task: what to measure.
        folder: a local folder for exchanged files.
    """
    spec, result, log = folder / "llm.json", folder / "llm-result.json", folder / "llm-output.txt"
    spec.write_text(json.dumps(asdict(task)))
    result.unlink(missing_ok=True)
    begin = time.time()
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "caslie_ray.benchmark._ray_llm", str(spec), str(result)],
            env=environment(), stdout=output, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        processes = ProcessTree(process.pid)
        try:
            with ResourceMonitor([], processes) as watcher:
                process.wait()
        finally:
            if process.poll() is None:
                terminate(process)
        processes.wait(_GONE_S)
    if not result.exists():
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        last = f": {lines[-1]}" if lines else ""
        return Timing(0, None, 0.0, reason=f"it ended with exit code {process.returncode} and no error{last}")
    report = json.loads(result.read_text())
    if report["error"]:
        return Timing(0, None, 0.0, reason=report["error"])
    tables = report["events"]
    units = sum(events[-1][1] for events in tables if events)
    steady = steady_seconds(tables)
    end = report["end"]
    memory = watcher.peaks(begin, end)
    return Timing(
        units, units / steady if steady else None, end - begin, tables[0][0][0] - begin,
        end - begin - steady if steady else None, "" if steady else "all rows came at once: too few views for a rate",
        {"memory_mib": memory},
    )  # fmt: skip


def root_cause(error: BaseException) -> str:
    """Return the first error of a chain, on one line.

    The text of an error from another process is its traceback, and may end with advice from Ray instead of the error.
    """
    lines = _CHAINED.split(str(error))[0].splitlines()
    begin = max((number for number, line in enumerate(lines, 1) if _FRAME.match(line)), default=0)
    message = " ".join(" ".join(lines[begin:]).split())
    return message if begin else f"{type(error).__name__}: {message}"


def _requests(task: RayLlmTask) -> list[tuple[Role, list[Request]]]:
    run = open_run(task.run)
    if task.measure == "prediction":
        base = role_of(load_profile(task.profile).lineup.base.by_itself())
        return [(base, questions_of(run))]
    source = "generated" if task.measure == "captioning" else "dataset"
    settings = ["schedule=staged", "votes.rule=majority", "votes.schedule=full", f"captions.source={source}"]
    lineup = resolve(load_profile(task.profile, settings))
    roles = [lineup.captioner] if lineup.captioner is not None else list(lineup.voters)
    views, images = views_of(run), images_of(run)
    return [(role, requests_of(views, images, lineup, role)) for role in roles]


def _answer(role: Role, requests: Sequence[Request], *, votes: bool) -> list[tuple[float, int]]:
    """Answer requests; return (time, answers so far)."""
    import ray.data
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    from caslie_ray.engines.vllm import engine_arguments

    if role.spec.engine != "vllm":  # with `engine: auto`
        raise EngineError(f"{role.name} runs on {role.engine}, and ray.data.llm on vLLM only")
    location, settings, choice_ids = engine_arguments(role.spec, CHOICES)
    shown = any(request.image is not None for request in requests)
    cluster = ray.cluster_resources()
    gpus = max(1, int(role.spec.gpus))
    on_gpu = role.spec.device == "cuda"
    config = vLLMEngineProcessorConfig(
        model_source=location,
        engine_kwargs=settings,
        concurrency=max(1, int(cluster.get("GPU", 0)) // gpus) if on_gpu else 1,
        batch_size=_BATCH,
        chat_template_stage=True,
        tokenize_stage=not shown,
        detokenize_stage=not votes,  # votes are read from probabilities
        prepare_multimodal_stage=shown,
        **({} if on_gpu else {"accelerator_type": None, "placement_group_config": {"bundles": [{"CPU": 0.25}]}}),
    )
    ids = sorted({one for choice in choice_ids for one in choice})
    sampling: dict[str, Any] = {"temperature": 0.0, "max_tokens": role.spec.max_new_tokens}
    if votes:
        sampling = {"temperature": 0.0, "max_tokens": 1, "logprob_token_ids": ids, "detokenize": False}

    def preprocess(row: dict[str, Any]) -> dict[str, Any]:
        content: Any = row["text"]
        if row["image"]:
            url = "data:image/png;base64," + base64.b64encode(row["image"]).decode()
            content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": row["text"]}]
        return {"messages": [{"role": "user", "content": content}], "sampling_params": sampling}

    def postprocess(row: dict[str, Any]) -> dict[str, Any]:
        if not votes:
            return {"key": row["key"], "text": row["generated_text"]}
        if not row["logprobs"]:
            raise RuntimeError(f"ray.data.llm returned no probabilities for {row['key']}")
        return {"key": row["key"], "logprobs": json.dumps(row["logprobs"], default=str)}

    items = [{"key": one.key, "text": one.prompt.text, "image": one.image} for one in requests]
    answered = build_processor(config, preprocess=preprocess, postprocess=postprocess)(ray.data.from_items(items))
    events: list[tuple[float, int]] = []
    count = 0
    for batch in answered.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        count += cast(pa.Table, batch).num_rows
        events.append((time.time(), count))
    if count != len(items):
        raise RuntimeError(f"ray.data.llm answered {count} of {len(items)} requests")
    return events


def _main(spec: str, result: str) -> None:
    from caslie_ray.cluster.connection import connect

    task = RayLlmTask(**json.loads(Path(spec).read_text()))
    events: list[list[tuple[float, int]]] = []
    error = ""
    try:
        connect()
        for role, requests in _requests(task):
            events.append(_answer(role, requests, votes=task.measure == "voting"))
    except Exception as caught:
        traceback.print_exc()
        error = root_cause(caught)
    Path(result).write_text(json.dumps({"events": events, "end": time.time(), "error": error}))


if __name__ == "__main__":
    _main(*sys.argv[1:])
