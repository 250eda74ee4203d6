"""Blocks of views in the chain, as Arrow tables: the views, their images, and the answers known so far."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from caslie_ray.captioning._known_answers import KnownAnswers
from caslie_ray.captioning._requests import vote_key
from caslie_ray.captioning._rows import CaptionAnswer, Row, View, VoteAnswer, view_of
from caslie_ray.hashing import content_id
from caslie_ray.roles import ResolvedLineup
from caslie_ray.storage.schemas import ANSWERS, SCHEMAS

__all__ = ["ViewBlock", "answer_row", "answers_of", "cut_blocks", "make_block", "open_block"]

_ANSWER = pa.struct(list(ANSWERS))
_VIEWS = SCHEMAS["views"]
_SCHEMA = pa.schema(
    [
        *_VIEWS,
        ("image", pa.binary()),
        ("known_caption", _ANSWER),
        ("known_votes", pa.list_(_ANSWER)),
    ]
)
_PARTITION, _BLOCK = b"partition", b"block"


class ViewBlock(NamedTuple):
    """An opened block.

    Attributes:
        table: its rows.
        partition: the partition of its views.
        stem: name of the files written for it; a recomputed block has the same.
        views: its views.
        known: the answers so far.
    """

    table: pa.Table
    partition: str
    stem: str
    views: list[View]
    known: KnownAnswers

    def images(self, ids: Iterable[str]) -> dict[str, bytes]:
        """Return encoded images by id; ids without an image are left out."""
        wanted = set(ids)
        encoded: dict[str, bytes] = {}
        for image_id, image in zip(self.table["image_id"].to_pylist(), self.table["image"], strict=True):
            if image_id in wanted and image_id not in encoded and image.is_valid:
                encoded[image_id] = image.as_py()
        return encoded

    def with_answers(self, lineup: ResolvedLineup, rows: Sequence[Row], *, keep_images: bool) -> pa.Table:
        """Return the block's table with its current answers."""
        table = self.table
        captions, votes = _columns(self.known, lineup, rows)
        for name, column in (("known_caption", captions), ("known_votes", votes)):
            table = table.set_column(table.schema.get_field_index(name), _SCHEMA.field(name), column)
        if not keep_images:
            empty = pa.nulls(table.num_rows, pa.binary())
            table = table.set_column(table.schema.get_field_index("image"), _SCHEMA.field("image"), empty)
        return table


def cut_blocks(views: Sequence[View], rows: int) -> Iterator[Sequence[View]]:
    """Cut sorted views into blocks; views that share a caption stay together, up to twice the block size.

    Args:
        views: in the order of `read_views`.
        rows: views per block.
    """
    begin = 0
    while begin < len(views):
        end = begin + rows
        last = min(len(views), begin + 2 * rows)
        while end < last and views[end][1:4:2] == views[end - 1][1:4:2]:
            end += 1
        yield views[begin:end]
        begin = end


def make_block(
    partition: str, rows: Sequence[Row], stored: Mapping[str, dict[str, Any]], images: Mapping[str, bytes],
    known: KnownAnswers, lineup: ResolvedLineup,
) -> pa.Table:  # fmt: skip
    """Return a block.

    Args:
        partition: the partition of the views.
        rows: the views with their answers so far.
        stored: their rows of `views`, by view id.
        images: encoded images by id; each is stored once per block, with the first of its views.
        known: known answers.
        lineup: the models.
    """
    captions, votes = _columns(known, lineup, rows)
    seen: set[str] = set()
    column: list[bytes | None] = []
    for row in rows:
        first = row.view.image_id not in seen
        seen.add(row.view.image_id)
        column.append(images.get(row.view.image_id) if first else None)
    views = pa.Table.from_pylist([stored[row.view.view_id] for row in rows], schema=_VIEWS)
    block = content_id(*(row.view.view_id for row in rows))[:16]
    columns = [*views.columns, pa.array(column, pa.binary()), captions, votes]
    metadata = {_PARTITION: partition.encode(), _BLOCK: block.encode()}
    return pa.table(columns, schema=_SCHEMA.with_metadata(metadata))


def open_block(table: pa.Table) -> ViewBlock:
    """Return the contents of a block made by `make_block`."""
    known = KnownAnswers()
    for answer in table["known_caption"].to_pylist():
        if answer is not None:
            known.captions[answer["key"]] = _caption(answer)
    for votes in table["known_votes"].to_pylist():
        for answer in votes or ():
            known.votes[answer["key"]] = _vote(answer)
    views = [view_of(row) for row in table.select(_VIEWS.names).to_pylist()]
    partition = table.schema.metadata[_PARTITION].decode()
    stem = f"{partition}-{table.schema.metadata[_BLOCK].decode()}"
    return ViewBlock(table, partition, stem, views, known)


def answer_row(answer: CaptionAnswer | VoteAnswer) -> dict[str, Any]:
    """Return an answer as a row of `answers/<model>`."""
    return {"text": None, "p_yes": None, **answer._asdict()}


def answers_of(table: pa.Table, *, captioner: bool) -> list[CaptionAnswer | VoteAnswer]:
    """Return the rows of `answers/<model>` as answers."""
    return [_caption(row) if captioner else _vote(row) for row in table.to_pylist()]


def _columns(known: KnownAnswers, lineup: ResolvedLineup, rows: Sequence[Row]) -> tuple[pa.Array, pa.Array]:
    captions: list[dict[str, Any] | None] = []
    votes: list[list[dict[str, Any]]] = []
    used = {vote.key for row in rows for _, vote in row.votes}
    has_others = any(key not in used for key in known.votes)
    for row in rows:
        caption = row.caption
        captions.append(answer_row(caption) if caption is not None else None)
        keys = [vote.key for _, vote in row.votes]
        if has_others and caption and caption.text:
            # A later voter may have answered under another lineup: its vote is kept even if an earlier one is missing.
            keys = [vote_key(row.view, caption.text, voter) for voter in lineup.voters]
        votes.append([answer_row(known.votes[key]) for key in keys if key in known.votes])
    return pa.array(captions, _ANSWER), pa.array(votes, pa.list_(_ANSWER))


def _caption(row: Mapping[str, Any]) -> CaptionAnswer:
    return CaptionAnswer(
        row["key"], row["text"], row["tokens"] or 0, bool(row["cut"]), row["error"], bool(row["retryable"]),
        row["truncated"],
    )  # fmt: skip


def _vote(row: Mapping[str, Any]) -> VoteAnswer:
    return VoteAnswer(
        row["key"], row["p_yes"], row["tokens"] or 0, bool(row["cut"]), row["error"], bool(row["retryable"])
    )
