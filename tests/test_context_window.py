"""Purchase histories with a caption per product: they fit the base's context, are learned, answered and counted."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from caslie_ray.context_window import MOST_FILES, ContextCheck, caption_room, describe_fit, evenly
from caslie_ray.engines import EngineSpec, Request, load_engine, resolve
from caslie_ray.engines.cutting import Fit
from caslie_ray.engines.trainable import Turns, load_trainable, load_turns
from caslie_ray.fusion import fuse, instructions_of, plan_fusion
from caslie_ray.fusion.summary_lines import summary_lines
from caslie_ray.hashing import content_id
from caslie_ray.profiles import LoraSettings, Profile, load_profile
from caslie_ray.profiles.training import TrainingSettings
from caslie_ray.prompts import Prompt
from caslie_ray.storage.run import Run, open_run
from caslie_ray.storage.schemas import SCHEMAS, SPANS
from caslie_ray.tasks import find_task
from caslie_ray.training._adapter import add_adapter
from caslie_ray.training._examples import Examples, read_examples
from caslie_ray.training._optimizer_steps import Learner

HISTORY = [f"Camping tent number {n} for two" for n in range(11)]
OPTIONS = [f"{chr(65 + n)}: Steel kettle number {n} with lid" for n in range(20)]
RESPONSE = OPTIONS[3]
# Words that are single tokens of the miniature tokenizer: a caption of n words has about n tokens.
WORDS = [
    "a",
    "red",
    "mug",
    "with",
    "a",
    "striped",
    "pattern",
    "made",
    "of",
    "steel",
    "and",
    "a",
    "small",
    "star",
    "on",
    "it",
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature base with the context of Llama 2."""
    folder = tmp_path_factory.mktemp("base") / "base"
    shutil.copytree(resolve("miniature:unim3-base").location, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    return folder


@pytest.fixture(scope="module")
def spec(base: Path) -> EngineSpec:
    return EngineSpec(str(base), context=4096, max_new_tokens=64, device="cpu")


@pytest.fixture(scope="module")
def turns(spec: EngineSpec) -> Turns:
    return load_turns(spec)


def profile_of(base: Path | str, *settings: str) -> Profile:
    lineup = [f"lineup.base.checkpoint={base}", "lineup.base.context=4096", "lineup.base.batch_tokens=8192"]
    return load_profile("mini", ["experiments.shuffled=false", "lineup.base.max_new_tokens=64", *lineup, *settings])


def caption_of(words: int) -> str:
    return " ".join(WORDS[n % len(WORDS)] for n in range(words))


def sequence(words: int, split: str = "train") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A row of `samples` of 11 and 20 products, and the rows of `captions` of their 31 images."""
    views = [content_id(split, str(words), str(n)) for n in range(31)]
    sample = {
        "sample_id": content_id(split, str(words)), "task": "sequential_recommendation", "split": split,
        "instruction": find_task("SR").instruction,
        "input": [{"field": f"{n + 1}th", "text": title} for n, title in enumerate(HISTORY)],
        "options": OPTIONS, "output": RESPONSE, "view_ids": views, "captions": [],
    }  # fmt: skip
    return sample, [{"view_id": view, "caption": caption_of(words), "verdict": n < 9} for n, view in enumerate(views)]


def prompt_of(words: int, variant: str = "uia") -> Prompt:
    sample, captions = sequence(words)
    known: Any = {row["view_id"]: _Known(row) for row in captions}
    row = next(row for row in instructions_of(sample, known) if row["variant"] == variant)
    return Prompt(row["prompt"], spans(row["prompt_fields"]), spans(row["prompt_captions"]))


def spans(value: Any) -> tuple[tuple[int, int], ...]:
    return tuple((start, end) for start, end in value)


class _Known:
    def __init__(self, row: dict[str, Any]) -> None:
        self.caption, self.verdict = row["caption"], row["verdict"]


def write(run: Run, table: str, *rows: dict[str, Any]) -> None:
    run.write(table, "0", pa.Table.from_pylist(list(rows), schema=SCHEMAS[table]))


@pytest.mark.parametrize(("words", "fits"), [(52, True), (125, False), (200, False)])
def test_a_history_with_every_caption_fits_completely_or_with_shorter_captions(
    turns: Turns, words: int, fits: bool
) -> None:
    turn = turns.encode(prompt_of(words), RESPONSE)
    assert len(turn.ids) <= 4096
    assert (turn.cut, turn.captions_cut) == (False, not fits)
    assert turns.fit_of(prompt_of(words), 64) == (Fit.WHOLE if fits else Fit.CAPTIONS_CUT)
    text = turns.read(turn.ids)
    for title in (*HISTORY, *OPTIONS):
        assert title in text
    assert turns.read(turn.ids[turn.start :]) == RESPONSE
    asked = turns.read(turn.ids[: turn.start]).removesuffix("assistant").strip()
    label = "information from its image: "
    shown = [line.removeprefix(label) for line in asked.split("\n") if line.startswith(label)]
    assert len(shown) == 31
    assert len(set(shown)) == 1, "captions alike are cut alike"
    assert caption_of(words).startswith(shown[0])
    assert len(shown[0].split()) > 50
    if not fits:
        assert len(turn.ids) > 3900, "more was cut than had to be"


def test_training_learns_from_it(spec: EngineSpec) -> None:
    prompts = [prompt_of(60), prompt_of(3)]
    table = pa.table(
        {
            "sample_id": ["a", "b"], "task": ["sequential_recommendation"] * 2,
            "prompt": [prompt.text for prompt in prompts],
            "prompt_fields": pa.array([list(map(list, prompt.fields)) for prompt in prompts], SPANS),
            "prompt_captions": pa.array([list(map(list, prompt.captions)) for prompt in prompts], SPANS),
            "response": [RESPONSE] * 2, "options": [OPTIONS] * 2,
        }
    )  # fmt: skip
    model, turns = load_trainable(replace(spec, context=1536), torch.device("cpu"))
    chosen = TrainingSettings(global_batch=2, micro_batch=1, lora=LoraSettings(rank=2))
    done = Learner(add_adapter(model, chosen.lora, 0), turns, Examples(table), chosen).step(0)
    assert (done.left_out, done.cut, done.captions_cut) == (0, 0, 1)
    assert done.read > 1500


def test_an_engine_answers_it(spec: EngineSpec) -> None:
    engine = load_engine(replace(spec, context=1536, max_new_tokens=4))
    whole, cut = engine.generate([Request("a", prompt_of(3)), Request("b", prompt_of(60))])
    engine.close()
    assert (whole.failure, whole.cut, whole.captions_cut) == (None, False, False)
    assert (cut.failure, cut.cut, cut.captions_cut) == (None, False, True)
    assert 1450 < cut.prompt_tokens <= 1532


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of three histories, of which one is too long with all captions."""
    run = open_run(str(tmp_path / "run"))
    made = [sequence(20), sequence(60), sequence(200)]
    write(run, "samples", *(sample for sample, _ in made))
    write(run, "captions", *(row for _, captions in made for row in captions))
    return run


def test_fusion_reports_what_does_not_fit(run: Run, base: Path) -> None:
    plan = plan_fusion(run, profile_of(base))
    expected = "unim3 reads 4,096 tokens: caslie 0 · uia 1 · text 0 of 3 lose words of captions; 0 do not fit"
    assert [line for line in plan if line.startswith("fit")] == [f"fit           {expected}"]
    summary = fuse(run, profile_of(base), quiet=True)
    assert summary["fit"]["variants"]["uia"] == {
        "instructions": 3, "fields_cut": 0, "captions_cut": 1, "too_long": 0
    }  # fmt: skip
    assert f"fit              {expected}" in summary_lines(summary)
    assert summary_lines(run.read_json("summary/fuse.json")) == summary_lines(summary)


def test_what_still_does_not_fit_is_counted_separately(run: Run, base: Path) -> None:
    narrow = profile_of(base, "lineup.base.context=600", "lineup.base.batch_tokens=600")
    counts = fuse(run, narrow, quiet=True)["fit"]["variants"]
    assert counts["text"]["too_long"] == 0
    assert counts["uia"]["too_long"] + counts["uia"]["captions_cut"] == 3
    assert counts["uia"]["too_long"] == 3, "the labels of 31 captions alone are too long"
    assert "uia 3 · text 0 do not fit" in describe_fit(fuse(run, narrow, quiet=True)["fit"])


def test_spans_of_captions_reach_the_trainer(run: Run, base: Path) -> None:
    fuse(run, profile_of(base), quiet=True)
    found = read_examples(run, "instructions", "uia", "train", ())
    prompts = {found.sample_id(n): found.prompt(n) for n in range(len(found))}
    for words in (20, 60, 200):
        assert prompts[sequence(words)[0]["sample_id"]] == prompt_of(words)
    for path in run.files("instructions"):  # as a file of before this column
        run.write("other", "0", run.read_file(path), schema=SCHEMAS["instructions"].remove(9))
        Path(path).write_bytes(Path(run.path("other", "0.parquet")).read_bytes())
    old = read_examples(run, "instructions", "uia", "train", ())
    assert [old.prompt(n).captions for n in range(len(old))] == [()] * 3
    assert old.digest == found.digest


def test_the_tokenizer_is_read_only_where_some_prompt_may_be_too_long(
    tmp_path: Path, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    shutil.copy(base / "config.json", broken)
    run = open_run(str(tmp_path / "run"))
    short, captions = sequence(1)
    write(run, "samples", {**short, "input": short["input"][:2], "view_ids": short["view_ids"][:22]})
    write(run, "captions", *captions)
    fit = fuse(run, profile_of(broken), quiet=True)["fit"]
    assert fit["unknown"] is None
    assert fit["variants"]["uia"]["instructions"] == 1
    long, captions = sequence(200)
    write(run, "samples", long)
    write(run, "captions", *captions)
    summary = fuse(run, profile_of(broken), quiet=True)
    assert run.read("instructions").num_rows == 3
    assert "cannot be read" in summary["fit"]["unknown"]
    assert "not known" in caplog.text
    assert any("not known whether prompts fit the context of unim3" in line for line in summary_lines(summary))


def test_a_check_counts_truncated_fields_separately(base: Path) -> None:
    check = ContextCheck(profile_of(base).lineup.base)
    check.add("text", Prompt("Review: " + "good " * 9000, ((8, 8 + 45000),)))
    check.add("text", Prompt("short"))
    assert check.summary()["variants"]["text"] == {
        "instructions": 2, "fields_cut": 1, "captions_cut": 0, "too_long": 0
    }  # fmt: skip


def test_the_tokens_that_captions_may_take_are_estimated_beforehand(tmp_path: Path, base: Path) -> None:
    run = open_run(str(tmp_path / "run"))
    long, short = sequence(1)[0], sequence(2)[0]
    rejected = {**short, "view_ids": [*short["view_ids"][:3], *[None] * 28]}
    review = {**rejected, "sample_id": "r", "input": [{"field": "review", "text": "good " * 9000}], "options": []}
    write(run, "samples", long, rejected, {**review, "view_ids": short["view_ids"][:1]})
    model = profile_of(base).lineup.base
    assert caption_room(run, model, 128, None) == (
        "up to 31 × 128 tokens = 3,968 of unim3's 4,096: uia prompts of 1 samples may lose words of captions"
    )
    assert caption_room(run, model, 128, 50) == "up to 31 × 70 tokens (50 words) = 2,170 of unim3's 4,096: they fit"
    assert caption_room(open_run(str(tmp_path / "none")), model, 128, None) is None


def test_evenly_spaced() -> None:
    assert evenly(range(5), 5) == [0, 1, 2, 3, 4]
    assert evenly(range(6), 3) == [1, 3, 5]
    chosen = evenly(range(1000), 64)
    assert len(chosen) == 64
    assert {after - before for before, after in itertools.pairwise(chosen)} == {15, 16}


def test_plans_of_many_files_read_a_part_of_them(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(str(tmp_path / "run"))
    (long, captions), (short, few) = sequence(200), sequence(1)
    files = 2 * MOST_FILES
    for number in range(files):
        # Of four files the first and second are long, so that half of the files that are read are.
        sample = long if number % 4 < 2 else short
        row = {**sample, "sample_id": f"{number:08x}"}
        run.write("samples", f"{number:02x}", pa.Table.from_pylist([row], schema=SCHEMAS["samples"]))
    write(run, "captions", *captions, *few)
    read: list[str] = []
    read_file = Run.read_file

    def noted(self: Run, path: str, *arguments: Any, **named: Any) -> pa.Table:
        read.append(path)
        return read_file(self, path, *arguments, **named)

    monkeypatch.setattr(Run, "read_file", noted)
    assert caption_room(run, profile_of(base).lineup.base, 128, None) == (
        "up to about 31 × 128 tokens = 3,968 of unim3's 4,096: uia prompts of about 128 samples may lose words of"
        " captions (64 of 128 files were read)"
    )
    assert len(read) == MOST_FILES
    read.clear()
    (fit,) = (line for line in plan_fusion(run, profile_of(base)) if line.startswith("fit"))
    assert fit == (
        "fit           unim3 reads 4,096 tokens: about caslie 0 · uia 64 · text 0 of 128 lose words of captions;"
        " about 0 do not fit (64 of 128 partitions were read)"
    )
    assert len([path for path in read if "/samples/" in path]) == MOST_FILES
    monkeypatch.undo()
    exact = fuse(run, profile_of(base), quiet=True)
    assert exact["fit"]["variants"]["uia"]["captions_cut"] == 64
    assert "about" not in describe_fit(exact["fit"])
