"""Our pools beside Ray's own `ray.data.llm`, on the same views and the same vLLM engine.

Run as:
    python -m tests.engines.compare_ray_llm --views 400

It captions the views of a drawn data set and has one voter vote on them, each way by itself, and prints seconds of
a first run of two views (start-up), seconds of all, and rows a second without the start-up. Of ray.data.llm only
the model's part is timed, since it has no ledger: its rows are in memory and stay there.
"""

from __future__ import annotations

import argparse
import base64
import functools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
import ray.data
from ray.data.llm import build_processor, vLLMEngineProcessorConfig

from caslie_ray.captioning import caption
from caslie_ray.captioning._rows import View, read_views
from caslie_ray.cluster import connect
from caslie_ray.dataset import ingest
from caslie_ray.engines._reader import find_source, load_reader
from caslie_ray.engines.vllm._support import engine_settings
from caslie_ray.lineup import Role, resolve
from caslie_ray.miniature import WorldSize
from caslie_ray.profiles import Profile
from caslie_ray.runs import Run, open_run
from tests.worlds import draw, profile, voter

WARM = 2


def main() -> None:
    """Compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, default=400, help="how many views at most")
    count = parser.parse_args().views
    connect()
    with tempfile.TemporaryDirectory() as folder:
        source = draw(
            Path(folder) / "source", WorldSize(train=count // 20, validation=0, ind=count // 40, ood=count // 40)
        )
        captions = profile(voter("phi"), settings=["lineup.captioner.engine=vllm", "votes.rule=always"])
        votes = profile(voter("phi", engine="vllm"), settings=["captions.source=dataset"])
        run = open_run(f"{folder}/run")
        ingest(run, [str(source)], captions)
        views = read_views(run.read("views"))[:count]
        images = {row["image_id"]: row["image"] for row in run.read("images").to_pylist()}
        print(f"{len(views)} views")
        for name, chosen, pictures in (("captions", captions, images), ("votes", votes, None)):
            role = resolve(chosen).roles[0]
            ours = functools.partial(_ours, Path(folder), run, chosen)
            theirs = functools.partial(_theirs, role, pictures)
            for whose, work in (("ours", ours), ("ray.data.llm", theirs)):
                short, whole = (_seconds(functools.partial(work, views[:n])) for n in (WARM, len(views)))
                rate = (len(views) - WARM) / max(whole - short, 1e-6)
                print(
                    f"{name:<9} {whose:<13} two views {short:5.1f} s · all {whole:5.1f} s · {rate:5.1f} rows/s",
                    flush=True,
                )


def _seconds(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _ours(folder: Path, whole: Run, chosen: Profile, views: Sequence[View]) -> None:
    run = open_run(tempfile.mkdtemp(dir=folder))
    wanted = {view.view_id for view in views}
    for name in sorted({whole.partition(path) for path in whole.files("views")}):
        table = whole.read("views", partition=name)
        keep = [view_id in wanted for view_id in table["view_id"].to_pylist()]
        if any(keep):
            run.write("views", name, table.filter(keep))
            run.write("images", name, whole.read("images", partition=name))
    assert caption(run, chosen, quiet=True).missing == 0


def _theirs(role: Role, images: dict[str, bytes] | None, views: Sequence[View]) -> None:
    spec = role.spec
    source = find_source(spec)
    reader = load_reader(spec, source)
    settings = vars(engine_settings(spec, source, reader, []))
    defaults = vars(type(engine_settings(spec, source, reader, []))(model=source.location))
    kwargs = {key: value for key, value in settings.items() if value != defaults[key] and key != "model"}
    config = vLLMEngineProcessorConfig(
        model_source=source.location, engine_kwargs=kwargs, concurrency=1, batch_size=64, accelerator_type=None,
        chat_template_stage=True, tokenize_stage=images is None, detokenize_stage=False,
        prepare_multimodal_stage=images is not None, should_continue_on_error=True,
        placement_group_config={"bundles": [{"CPU": 0.25}]},
    )  # fmt: skip
    ids = sorted(set(reader.tokenizer.encode("yes no Yes No", add_special_tokens=False)))
    answer = {"max_tokens": spec.max_new_tokens, "temperature": 0.0}
    choice = {"max_tokens": 1, "temperature": 0.0, "logprobs": 1, "logprob_token_ids": ids}

    def ask(row: dict[str, Any]) -> dict[str, Any]:
        content: Any = row["text"]
        if row["image"]:
            url = "data:image/png;base64," + base64.b64encode(row["image"]).decode()
            content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": row["text"]}]
        return {
            "messages": [{"role": "user", "content": content}],
            "sampling_params": choice if images is None else answer,
        }

    def told(row: dict[str, Any]) -> dict[str, Any]:
        return {
            "view_id": row["view_id"],
            "text": row["generated_text"],
            "logprobs": json.dumps(row.get("logprobs"), default=str),
        }

    items = [
        {
            "view_id": view.view_id,
            "text": (
                view.caption_prompt if images else view.quality_prompt.fill("caption", view.given_caption or "none")
            ).text,
            "image": images[view.image_id] if images else None,
        }
        for view in views
    ]
    done = build_processor(config, preprocess=ask, postprocess=told)(ray.data.from_items(items)).materialize()
    assert done.count() == len(items)


if __name__ == "__main__":
    main()
