"""The answers of models that are already known, by key."""

from __future__ import annotations

from dataclasses import dataclass, field

from caslie_ray.captioning._rows import CaptionAnswer, VoteAnswer

__all__ = ["KnownAnswers"]


@dataclass
class KnownAnswers:
    """Captions and votes by key; `new` lists those that were added since they were loaded."""

    captions: dict[str, CaptionAnswer] = field(default_factory=dict)
    votes: dict[str, VoteAnswer] = field(default_factory=dict)
    new: list[CaptionAnswer | VoteAnswer] = field(default_factory=list)

    def add(self, answer: CaptionAnswer | VoteAnswer) -> None:
        """Add an answer of a model."""
        if isinstance(answer, CaptionAnswer):
            self.captions[answer.key] = answer
        else:
            self.votes[answer.key] = answer
        self.new.append(answer)
