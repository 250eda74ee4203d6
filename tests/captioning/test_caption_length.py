"""Caption length: line breaks, token and word limits, and files older than the columns that record truncation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from caslie_ray.captioning import CaptionJob, plan_captions
from caslie_ray.captioning._caption_work import CaptionWork, caption_partition
from caslie_ray.captioning._completion_marker import read_completion
from caslie_ray.captioning._counts import count_partition, merge_counts
from caslie_ray.captioning._merge import merge_partition
from caslie_ray.captioning._partition_status import partition_status
from caslie_ray.captioning._requests import CONTEXT_FREE, caption_answer, caption_key, caption_prompt
from caslie_ray.captioning._rows import read_views
from caslie_ray.captioning._summary import table_summary
from caslie_ray.captioning.summary_lines import summary_lines
from caslie_ray.engines import Generation, fingerprint
from caslie_ray.engines._architectures import TEXT_ARCHITECTURE
from caslie_ray.engines._chat import Chat
from caslie_ray.prompts import Prompt
from caslie_ray.roles import resolve
from caslie_ray.storage.run import Run, open_run
from tests.captioning.fakes import drop_answers
from tests.engines import tiny
from tests.worlds import InProcess, caption_here, fresh_run, profile, rows, voter

SHORT = "lineup.captioner.max_new_tokens=8"


@pytest.fixture(scope="module")
def captioned(world: Path, tmp_path_factory: pytest.TempPathFactory, ask: InProcess) -> Path:
    path = tmp_path_factory.mktemp("captioned") / "run"
    caption_here(fresh_run(world, path), profile(), ask)
    return path


def partitions(run: Run) -> list[str]:
    return sorted({run.partition(path) for path in run.files("views")})


def without(run: Run, table: str, *columns: str) -> None:
    """Drop columns from a table's files."""
    for path in run.files(table):
        old = pq.read_table(path)
        names = [name for name in columns if name in old.column_names]
        assert names
        pq.write_table(old.drop_columns(names), path)


def test_line_breaks_in_a_caption_become_spaces() -> None:
    role = resolve(profile()).captioner
    assert role is not None
    text = "**A red mug.**\n\n- striped \t pattern\r\n- made of steel "
    answer = caption_answer(Generation("k", text, 5, 9, False), role)
    assert answer.text == "**A red mug.** - striped pattern - made of steel"
    assert caption_answer(Generation("k", " \n\t ", 5, 9, False), role).error == "captioner wrote an empty caption"


@pytest.fixture(scope="module")
def truncated(world: Path, tmp_path_factory: pytest.TempPathFactory, ask: InProcess) -> Path:
    path = tmp_path_factory.mktemp("truncated") / "run"
    caption_here(fresh_run(world, path), profile(settings=[SHORT]), ask)
    return path


def test_a_truncated_caption_is_marked_and_counted(captioned: Path, truncated: Path, tmp_path: Path) -> None:
    short, long = fresh_run(truncated, tmp_path / "short"), open_run(str(captioned))
    complete = {row["view_id"]: row["caption"] for row in rows(long)}
    assert not any(row["caption_truncated"] for row in rows(long))
    marked = {row["view_id"] for row in rows(short) if row["caption_truncated"]}
    # A caption that would have ended with the next token is marked too.
    differing = {row["view_id"] for row in rows(short) if row["caption"] != complete[row["view_id"]]}
    assert differing <= marked < set(complete)
    assert differing
    lineup = resolve(profile(settings=[SHORT]))
    counts = merge_counts(count_partition(short, name, lineup) for name in partitions(short))
    assert table_summary(counts)["captions_truncated"] == len(marked)
    assert all(read_completion(short, name, lineup) is not None for name in partitions(short))
    summary = CaptionJob(short, profile(settings=[SHORT]), quiet=True).execute().summary
    assert summary["captions_truncated"] == len(marked)
    assert f"{len(marked):,} captions reached the captioner's max_new_tokens" in "\n".join(summary_lines(summary))


def test_the_staged_schedule_marks_the_same_captions(
    world: Path, truncated: Path, tmp_path: Path, ask: InProcess
) -> None:
    streamed, staged = open_run(str(truncated)), fresh_run(world, tmp_path / "staged")
    lineup = resolve(profile(settings=[SHORT]))
    for role in lineup.roles:
        work = CaptionWork(staged, lineup, 8, frozenset({role.name}), role.name)
        for name in partitions(staged):
            list(caption_partition(work, name, ask))
    assert [merge_partition(staged, name, lineup) for name in partitions(staged)] == [0] * len(partitions(staged))
    assert {row["caption_truncated"] for row in rows(staged)} >= {True}
    assert rows(staged) == rows(streamed)


@pytest.mark.parametrize("marker", [True, False])
def test_a_run_without_the_column_is_complete(captioned: Path, tmp_path: Path, ask: InProcess, marker: bool) -> None:
    run = fresh_run(captioned, tmp_path / "run")
    drop_answers(run)
    lineup = resolve(profile())
    if not marker:
        for path in run.files("captions"):
            run.write("captions", run.partition(path), run.read_file(path))
    notes = {path: pq.read_metadata(path).metadata for path in run.files("captions")}
    for path in run.files("captions"):
        old = pq.read_table(path).drop_columns(["caption_truncated"])
        pq.write_table(old.replace_schema_metadata(notes[path]), path)
    assert all((read_completion(run, name, lineup) is not None) == marker for name in partitions(run))
    assert all(partition_status(run, name, lineup).missing == 0 for name in partitions(run))
    assert caption_here(run, profile(), ask) == {}
    result = CaptionJob(run, profile(), quiet=True).execute()
    assert (result.missing, result.summary["this_session"]["model_calls"]) == (0, 0)
    assert result.summary["captions_truncated"] == 0
    assert {row["caption_truncated"] for row in rows(run)} == {None}


def test_answers_without_the_column_are_used(world: Path, tmp_path: Path, ask: InProcess) -> None:
    run = fresh_run(world, tmp_path / "run")
    lineup = resolve(profile())
    captioner = lineup.roles[0]
    work = CaptionWork(run, lineup, 8, frozenset({captioner.name}), captioner.name)
    for name in partitions(run):
        list(caption_partition(work, name, ask))
    without(run, captioner.answers, "truncated")
    assert captioner.name not in caption_here(run, profile(), ask)
    assert {row["caption_truncated"] for row in rows(run)} == {None}


def test_a_word_limit_is_appended_to_the_prompt(captioned: Path, tmp_path: Path, ask: InProcess) -> None:
    run = fresh_run(captioned, tmp_path / "run")
    before, views = rows(run), rows(run, "views")
    limited = profile(settings=["captions.words=7"])
    lineup, plain = resolve(limited), resolve(profile())
    assert lineup.key != plain.key
    for view in read_views(run.read("views")):
        prompt = caption_prompt(view, lineup)
        assert prompt.text == f"{view.caption_prompt.text} Use no more than 7 words."
        assert prompt.fields == view.caption_prompt.fields
        assert caption_key(view, lineup) != caption_key(view, plain)
    calls = caption_here(run, limited, ask)
    assert calls["captioner"] == len({row["caption_key"] for row in before})
    assert rows(run, "views") == views
    # Without the limit, the earlier captions are used again.
    assert caption_here(run, profile(), ask) == {}
    assert rows(run) == before


def test_vote_keys_do_not_depend_on_the_default_answer_length() -> None:
    """A vote generates no text: its key is the same as under the earlier default."""
    for role in resolve(profile()).voters:
        assert role.fingerprint == fingerprint(replace(role.spec, max_new_tokens=64))
    (own,) = resolve(profile(voter("phi", max_new_tokens=9))).voters
    assert own.fingerprint == fingerprint(own.spec)


def test_a_word_limit_without_context(world: Path, tmp_path: Path, ask: InProcess) -> None:
    lineup = resolve(profile(settings=["captions.words=7", "captions.context=free"]))
    view = read_views(fresh_run(world, tmp_path / "run").read("views"))[0]
    assert caption_prompt(view, lineup).text == f"{CONTEXT_FREE.text} Use no more than 7 words."


def test_a_captioner_without_instructions_gets_no_word_limit(tmp_path: Path) -> None:
    folder = tiny.build("blip2", tmp_path / "blip2")
    settings = [f"lineup.captioner.checkpoint={folder}", "lineup.captioner.context=512", "captions.words=7"]
    lineup = resolve(profile(settings=settings))
    assert (lineup.caption_words, lineup.context_free) == (None, True)


def test_a_word_limit_is_never_cut(world: Path, tmp_path: Path) -> None:
    """A prompt that is too long loses words of the user's text and keeps the sentence after it."""
    view = read_views(fresh_run(world, tmp_path / "run").read("views"))[0]
    start, end = view.caption_prompt.fields[0]
    text = view.caption_prompt.text[:start] + "lovely thing " * 4000 + view.caption_prompt.text[end:]
    long = view._replace(caption_prompt=Prompt(text, ((start, start + 13 * 4000),)))
    prompt = caption_prompt(long, resolve(profile(settings=["captions.words=7"])))
    one = Chat("x", tiny.tokenizer(), TEXT_ARCHITECTURE, "{% for m in messages %}{{ m['content'] }}{% endfor %}", None)
    fitted = one.fit(prompt, 800, image=False)
    assert fitted.cut
    assert fitted.text.endswith(" Use no more than 7 words.")


def test_the_plan_prints_the_tokens_that_captions_take(captioned: Path) -> None:
    run = open_run(str(captioned))
    most = max(sum(view is not None for view in row["view_ids"]) for row in rows(run, "samples"))
    (line,) = [line for line in plan_captions(run, profile(), quiet=True).lines() if "captions in a prompt" in line]
    assert line.endswith(f"up to {most} × 40 tokens = {most * 40:,} of unim3's 1,024: they fit")
