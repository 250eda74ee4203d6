"""Column names of a source."""

from __future__ import annotations

from pydantic import Field

from caslie_ray.profiles._base import Settings

__all__ = ["SourceKeys"]


class SourceKeys(Settings):
    """Names that a source uses for the columns of the released format."""

    task: str = "task"
    """Column of the task's name or code."""

    split: str = "split"
    """Column of the split."""

    instruction: str = "instruction"
    """Column of the instruction."""

    input: str = "input"
    """Column of the input: JSON or plain text."""

    options: str = "options"
    """Column of the options: a JSON list or a list."""

    output: str = "output"
    """Column of the expected answer."""

    images: str = "images"
    """Column of the image references: a JSON list or a list."""

    captions: str = "caption_info"
    """Column of the captions in the data set."""

    id: str = "id"
    """Column of the row's own id. It is kept in the tables as `source_ids`; it does not identify a sample."""

    fields: dict[str, str] = Field(default_factory=dict)
    """Keys inside the input that differ from the released format: source key to released key. In a catalogue, columns
    and what they are: `{Bezeichnung: title}`."""
