"""Samples and verdicts become instructions."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from caslie_ray.errors import RunError
from caslie_ray.fusion import SHUFFLED, VARIANTS, fuse, plan_fusion
from caslie_ray.hashing import content_id
from caslie_ray.profiles import load_profile
from caslie_ray.storage.lease_files import Fence
from caslie_ray.storage.run import Run, open_run
from caslie_ray.storage.schemas import SCHEMAS
from caslie_ray.tasks import find_task
from tests.tasks.records import RECORDS, sample

PROFILE = load_profile("mini", ["experiments.shuffled=false"])

SR_TOP = (
    "Estimate the user’s intent based on the user’s purchase history, and predict the next product that the user is"
    " most likely to purchase from the given options.\npurchase history:\n"
)
PRP_TOP = (
    "Given the title of two products, as well as the potential extra information about the products extracted from the"
    " product images, predict the relation of the two products. Only answer from the options.\n"
)
PRP_END = (
    "options:\nA: Users who buy product 1 may also buy product 2.\n"
    "B: Users who view product 1 may also view product 2.\nC: The product 1 is similar with the product 2."
)


def sample_row(code: str, view_ids: Sequence[str | None], **changes: object) -> dict[str, Any]:
    row = sample(code, **changes)
    return {
        "sample_id": row.sample_id,
        "task": row.task,
        "split": row.split,
        "instruction": row.instruction,
        "input": [{"field": name, "text": text} for name, text in row.input],
        "options": list(row.options),
        "output": row.output,
        "view_ids": list(view_ids),
        "captions": [],
    }


def caption_row(view_id: str, caption: str | None, verdict: bool, error: str | None = None) -> dict[str, Any]:
    return {"view_id": view_id, "caption": caption, "verdict": verdict, "error": error}


def put(run: Run, table: str, stem: str, *rows: Mapping[str, Any]) -> str:
    return run.write(table, stem, pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMAS[table]))


def do_fuse(run: Run) -> dict[str, Any]:
    return fuse(run, PROFILE, quiet=True)


def prompts(run: Run) -> dict[str, str]:
    """The prompts of a run with a single sample, by variant."""
    return {row["variant"]: row["prompt"] for row in run.read("instructions").to_pylist()}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return open_run(str(tmp_path / "run"))


def test_captions_are_placed_next_to_their_own_product_in_sr(run: Run) -> None:
    """The second product's image was rejected; the third caption lost."""
    put(run, "samples", "0", sample_row("SR", ["tent", None, "kettle", "tent2"]))
    put(
        run,
        "captions",
        "0",
        caption_row("kettle", "A kettle.", verdict=False),
        caption_row("tent", "A tent.", verdict=True),
        caption_row("tent2", "A tent again.", verdict=True),
        caption_row("other", "Not asked for.", verdict=True),
    )
    summary = do_fuse(run)
    assert prompts(run) == {
        "caslie": SR_TOP
        + "1st: Tent\ninformation from its image: A tent.\n2nd: Stove\noptions:\nA: Kettle\nB: Tent\n"
        + "information from its image: A tent again.",
        "uia": SR_TOP
        + "1st: Tent\ninformation from its image: A tent.\n2nd: Stove\noptions:\nA: Kettle\n"
        + "information from its image: A kettle.\nB: Tent\ninformation from its image: A tent again.",
        "text": SR_TOP + "1st: Tent\n2nd: Stove\noptions:\nA: Kettle\nB: Tent",
    }
    marked = {
        row["variant"]: [row["prompt"][start:end] for start, end in row["prompt_captions"]]
        for row in run.read("instructions").to_pylist()
    }
    assert marked == {
        "caslie": ["A tent.", "A tent again."],
        "uia": ["A tent.", "A kettle.", "A tent again."],
        "text": [],
    }
    used = {row["variant"]: row["captions_used"] for row in run.read("instructions").to_pylist()}
    assert used == {"caslie": 2, "uia": 3, "text": 0}
    assert {name: counts["captions"] for name, counts in summary["variants"].items()} == used
    assert summary["views_without_caption_row"] == 0


def test_captions_are_placed_next_to_their_own_product_in_prp(run: Run) -> None:
    put(run, "samples", "0", sample_row("PRP", [None, "saucer"]))
    put(run, "captions", "0", caption_row("saucer", "A saucer.\n", verdict=True))
    do_fuse(run)
    with_caption = (
        f"{PRP_TOP}product 1: Red mug\nproduct 2: Blue saucer\n"
        f"information from the image of product 2: A saucer.\n{PRP_END}"
    )
    assert prompts(run) == {
        "caslie": with_caption,
        "uia": with_caption,
        "text": f"{PRP_TOP}product 1: Red mug\nproduct 2: Blue saucer\n{PRP_END}",
    }


@pytest.mark.parametrize("code", RECORDS)
def test_a_losing_caption_leaves_no_trace(run: Run, code: str) -> None:
    views = [f"v{n}" for n in range(len(sample(code).images))]
    put(run, "samples", "0", sample_row(code, views))
    put(run, "captions", "0", *(caption_row(view, "XYZ", verdict=False) for view in views))
    do_fuse(run)
    rows = {row.pop("variant"): row for row in run.read("instructions").to_pylist()}
    assert rows["caslie"] == rows["text"]
    assert "XYZ" not in str(rows["caslie"])
    assert "image:" not in rows["caslie"]["prompt"].removeprefix(sample(code).instruction)
    assert rows["uia"]["prompt"].count("XYZ") == rows["uia"]["captions_used"] == len(views)


@pytest.mark.parametrize("code", RECORDS)
def test_every_variant_of_every_sample(run: Run, code: str) -> None:
    row = sample_row(code, [None] * len(sample(code).images), split="ood")
    put(run, "samples", "0", row)
    do_fuse(run)
    rows = run.read("instructions").to_pylist()
    assert [one["variant"] for one in rows] == [*VARIANTS]
    for one in rows:
        assert (one["sample_id"], one["task"], one["split"]) == (row["sample_id"], row["task"], "ood")
        assert (one["response"], one["options"]) == (row["output"], row["options"])
        turn = find_task(code).prompt(sample(code), [])
        assert one["prompt"] == turn.text
        assert one["prompt_fields"] == [list(span) for span in turn.fields]
        assert one["prompt_captions"] == []


def test_instructions_have_the_ids_of_their_sources(run: Run) -> None:
    put(run, "samples", "0", sample_row("CC", ["drill"]) | {"source_ids": ["7", "again"]}, sample_row("SA", ["mug"]))
    put(run, "captions", "0", caption_row("drill", "a drill", True), caption_row("mug", "a mug", True))
    do_fuse(run)
    found = {(row["task"], str(row["source_ids"])) for row in run.read("instructions").to_pylist()}
    assert found == {("category_classification", "['7', 'again']"), ("sentiment_analysis", "None")}


def test_error_rows(run: Run) -> None:
    """No caption: nothing to use. A caption that found no quorum: only use-it-always takes it."""
    put(run, "samples", "0", sample_row("SR", ["a", "b", "c", "d"]))
    put(
        run,
        "captions",
        "0",
        caption_row("a", None, False, "empty caption"),
        caption_row("b", "No quorum.", False, "no quorum: 1 valid votes of 3 voters"),
        caption_row("c", "", True),
    )
    assert do_fuse(run)["views_without_caption_row"] == 1
    told = prompts(run)
    assert [row["captions_used"] for row in run.read("instructions").to_pylist()] == [0, 1, 0]
    assert told["caslie"] == told["text"]
    assert [line for line in told["uia"].split("\n") if line not in told["text"].split("\n")] == [
        "information from its image: No quorum."
    ]


def test_late_writers_add_no_duplicate_row(run: Run) -> None:
    row = sample_row("SA", ["v"])
    for stem in ("0", "0-late"):
        put(run, "samples", stem, row)
        put(run, "captions", stem, caption_row("v", stem, verdict=True))
    os.utime(run.files("captions", "0")[0], (1000, 1000))
    do_fuse(run)
    assert run.read("instructions").num_rows == len(VARIANTS)
    assert sum(run.count_rows(path) for path in run.files("instructions")) == len(VARIANTS)


def test_a_later_job_replaces_the_files_of_a_former_one(run: Run) -> None:
    first, second = (replace(run, fence=Fence(epoch, {})) for epoch in (1, 2))
    for stem, view, code in (("0", "tent", "CC"), ("1", "stove", "SA")):
        put(first, "samples", stem, sample_row(code, [view]))
        put(first, "captions", stem, caption_row(view, f"A {view}.", verdict=True))
    assert do_fuse(first)["files_written"] == 2
    put(second, "captions", "1", caption_row("stove", "A pan.", verdict=True))
    assert do_fuse(second)["files_written"] == 1
    names = sorted(path.rpartition("/")[2] for path in run.files("instructions"))
    assert names == ["0-e00000001.parquet", "1-e00000002.parquet"]
    assert sum("A pan." in row["prompt"] for row in run.read("instructions").to_pylist()) == 2
    assert not any("A stove." in row["prompt"] for row in run.read("instructions").to_pylist())


def stamps(run: Run) -> dict[str, tuple[int, int]]:
    found = [os.stat(path) for path in run.files("instructions")]
    return {path: (s.st_mtime_ns, s.st_ino) for path, s in zip(run.files("instructions"), found, strict=True)}


def test_a_second_run_writes_what_changed_and_no_more(run: Run) -> None:
    put(run, "samples", "0", sample_row("SA", ["a"]))
    put(run, "samples", "1", sample_row("CC", ["b"]))
    put(run, "captions", "0", caption_row("a", "Broken.", verdict=True), caption_row("b", "Drill.", verdict=True))
    assert do_fuse(run)["files_written"] == 2
    before = stamps(run)
    again = do_fuse(run)
    assert again["files_written"] == 0
    assert again["variants"]["caslie"] == {"train": 2, "captions": 2}
    assert stamps(run) == before

    put(run, "captions", "0", caption_row("a", "Broken.", verdict=True), caption_row("b", "Drill.", verdict=False))
    assert do_fuse(run)["files_written"] == 1
    (changed,) = [path for path, stamp in stamps(run).items() if before[path] != stamp]
    assert run.partition(changed) == "1"


def test_what_is_no_longer_a_sample_is_no_longer_an_instruction(run: Run) -> None:
    put(run, "samples", "0", sample_row("SA", [None]))
    gone = put(run, "samples", "1", sample_row("CC", [None]))
    do_fuse(run)
    put(run, "instructions", "0-stray", {"sample_id": "x", "variant": "text"})
    run.delete([gone])
    assert do_fuse(run)["files_written"] == 1
    assert set(run.read("instructions")["task"].to_pylist()) == {"sentiment_analysis"}
    assert len(run.files("instructions")) == 1
    assert do_fuse(run)["files_written"] == 0


def test_samples_without_a_true_answer_are_no_instructions(run: Run) -> None:
    put(run, "samples", "0", sample_row("SA", [None]), sample_row("AP", [None], output=None))
    put(run, "samples", "1", sample_row("CC", [None], output=None))
    assert do_fuse(run)["variants"]["text"] == {"train": 1, "captions": 0}
    assert set(run.read("instructions")["task"].to_pylist()) == {"sentiment_analysis"}
    assert any(line.startswith("samples") for line in plan_fusion(run, PROFILE))


def test_the_summary_is_kept(run: Run) -> None:
    put(run, "samples", "0", sample_row("SA", [None], split="val"), sample_row("CC", [None], split="test"))
    summary = do_fuse(run)
    assert run.read_json("summary/fuse.json") == summary
    assert summary["variants"]["uia"] == {"validation": 1, "ind": 1, "captions": 0}


def test_missing_tables_are_named(run: Run) -> None:
    with pytest.raises(RunError, match=r"has no samples: run ingest first"):
        do_fuse(run)
    put(run, "samples", "0", sample_row("SA", ["v"]))
    put(run, "views", "0", {"view_id": "v"})
    with pytest.raises(RunError, match=r"has no captions: run caption first"):
        do_fuse(run)
    assert run.files("instructions") == []
    Path(put(run, "captions", "0", caption_row("v", "x", True))).write_bytes(b"PAR1")
    with pytest.raises(RunError, match=r"cannot read .*/captions/0\.parquet"):
        do_fuse(run)


@pytest.mark.parametrize("data", [b"", b"PAR1 and no more"])
def test_a_damaged_file_of_instructions_is_rewritten(run: Run, data: bytes) -> None:
    put(run, "samples", "0", sample_row("SA", ["v"]))
    put(run, "captions", "0", caption_row("v", "x", True))
    do_fuse(run)
    before = run.read("instructions").to_pylist()
    (path,) = run.files("instructions")
    Path(path).write_bytes(data)
    with pytest.raises(RunError, match="run fuse again, which rewrites it"):
        run.read("instructions")
    assert do_fuse(run)["files_written"] == 1
    assert run.read("instructions").to_pylist() == before


def test_the_plan(run: Run) -> None:
    put(run, "samples", "0", sample_row("SA", ["v"]))
    put(run, "captions", "0", caption_row("v", "x", True))
    assert plan_fusion(run, PROFILE) == [
        "samples       1",
        "captions      1",
        "instructions  3 (caslie, uia, text)",
        "fit           unim3 reads 1,024 tokens: caslie 0 · uia 0 · text 0 of 1 lose words of captions; 0 do not fit",
        "models        none",
    ]
    assert run.files("instructions") == []


def voted(view_id: str, verdict: bool, **answers: str) -> dict[str, Any]:
    votes = [
        {"voter": name, "answer": answer, "p_yes": 1.0, "key": "k", "cut": False, "tokens": 1, "error": None,
         "retryable": False}
        for name, answer in answers.items()
    ]  # fmt: skip
    return {**caption_row(view_id, f"caption {view_id}", verdict), "votes": votes}


def experiments(run: Run) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["variant"], row["sample_id"]): row for row in run.read("experiments").to_pylist()}


def test_majorities_of_other_voters_choose_other_captions(tmp_path: Path) -> None:
    run = open_run(str(tmp_path / "run"))
    put(run, "samples", "0", sample_row("AP", ["1"]), sample_row("CC", ["2"]))
    answers = {"llama-3b": "yes", "phi": "no", "mistral": "no"}
    put(run, "captions", "0", voted("1", False, **answers), voted("2", True, **{**answers, "phi": "yes"}))
    chosen = load_profile(
        "mini",
        ["experiments.shuffled=false", "votes.schedule=full",
         "experiments.voter_sets=[[llama-3b], [phi], [llama-3b, phi, mistral]]"],
    )  # fmt: skip
    fuse(run, chosen, quiet=True)
    used = {key: row["captions_used"] for key, row in experiments(run).items()}
    first, second = (row["sample_id"] for row in run.read("samples").to_pylist())
    assert used == {
        ("voters-llama-3b", first): 1, ("voters-llama-3b", second): 1,
        ("voters-phi", first): 0, ("voters-phi", second): 1,
        ("voters-3", first): 0, ("voters-3", second): 1,
    }  # fmt: skip
    again = fuse(run, chosen, quiet=True)
    assert again["files_written"] == 0


def test_a_voter_that_was_not_asked_is_named(tmp_path: Path) -> None:
    run = open_run(str(tmp_path / "run"))
    put(run, "samples", "0", sample_row("AP", ["1"]))
    put(run, "captions", "0", voted("1", True, **{"llama-3b": "yes", "phi": "yes"}))
    chosen = load_profile(
        "mini",
        ["experiments.shuffled=false", "votes.schedule=full", "experiments.voter_sets=[[llama-3b, phi, mistral]]"],
    )
    with pytest.raises(RunError, match=r"mistral did not vote on every view.*votes.schedule=full"):
        fuse(run, chosen, quiet=True)


def test_as_many_captions_of_each_task_and_split_are_drawn_at_random(tmp_path: Path) -> None:
    run = open_run(str(tmp_path / "run"))
    for code, split, wins in (("AP", "train", 3), ("AP", "ood", 7), ("CC", "ind", 9)):
        ids = [f"{code}{split}{number:02}" for number in range(20)]
        name = f"{code}{split}"
        put(run, "captions", name, *(caption_row(view_id, "said", n < wins) for n, view_id in enumerate(ids)))
        samples = [{**sample_row(code, [view_id]), "sample_id": view_id, "split": split} for view_id in ids]
        put(run, "samples", name, *samples)

    def drawn() -> list[str]:
        fuse(run, load_profile("mini", ["experiments.shuffled=true"]), quiet=True)
        rows = [row for (variant, _), row in experiments(run).items() if variant == SHUFFLED]
        assert len(rows) == 60
        return sorted(row["sample_id"] for row in rows if row["captions_used"])

    found = drawn()
    assert Counter(view_id[:-2] for view_id in found) == {"APtrain": 3, "APood": 7, "CCind": 9}
    assert not all(int(view_id[-2:]) < 9 for view_id in found)
    assert found == drawn()
    expected = {
        view_id
        for name, wins in (("APtrain", 3), ("APood", 7), ("CCind", 9))
        for view_id in sorted((f"{name}{n:02}" for n in range(20)), key=lambda one: content_id(SHUFFLED, one))[:wins]
    }
    assert set(found) == expected


def test_verdicts_without_captions_leave_a_mark_where_a_caption_won(tmp_path: Path) -> None:
    run = open_run(str(tmp_path / "run"))
    put(run, "samples", "0", sample_row("PRP", ["1", "2"]), sample_row("AP", ["3"]))
    put(run, "captions", "0", caption_row("1", "a red mug", True), caption_row("2", "a lamp", False))
    put(run, "captions", "1", caption_row("3", None, False, "lost"))
    chosen = load_profile("mini", ["experiments.verdict_only=true"])
    summary = fuse(run, chosen, quiet=True)
    rows = {(row["variant"], row["task"]): row for row in experiments(run).values()}
    assert {variant for variant, _ in rows} == {"verdict-only"}
    prp = rows["verdict-only", find_task("PRP").name]
    won = {row["variant"]: row for row in run.read("instructions").to_pylist() if row["task"] == prp["task"]}
    assert prp["prompt"] == won["caslie"]["prompt"].replace("a red mug", "helpful")
    assert prp["captions_used"] == 1
    assert rows["verdict-only", find_task("AP").name]["captions_used"] == 0
    counted = summary["verdict_bits"]
    label = find_task("PRP").true_label(prp["response"], prp["options"])
    assert counted["PRP"] == {prp["split"]: {"10": {label: 1}}}
    assert list(counted["AP"][rows["verdict-only", find_task("AP").name]["split"]]) == ["0"]
    assert fuse(run, chosen, quiet=True)["files_written"] == 0


def test_captions_without_context_make_a_variant_of_their_own(tmp_path: Path) -> None:
    run = open_run(str(tmp_path / "run"))
    put(run, "samples", "0", sample_row("AP", ["1"]))
    put(run, "captions", "0", caption_row("1", "with context", True))
    chosen = load_profile("mini", ["experiments.shuffled=false", "experiments.context_free=true"])
    with pytest.raises(RunError, match="has no captions without context: run caption first, with the same profile"):
        fuse(run, chosen, quiet=True)
    put(run.below("context_free"), "captions", "0", caption_row("1", "a small red thing", True))
    fuse(run, chosen, quiet=True)
    (row,) = experiments(run).values()
    assert row["variant"] == "context-free"
    assert "a small red thing" in row["prompt"]
    assert "with context" not in row["prompt"]
