"""Answers of models, cached by their keys in the ledger."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, MutableMapping
from typing import Any

__all__ = ["AnswerCache", "RequestAnswers"]


class AnswerCache:
    """The latest answers of one gateway replica.

    Args:
        most: upper limit of answers; the least recently used go first.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._answers: OrderedDict[str, Any] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> Any | None:
        """Return an answer; None if it is not cached."""
        if key not in self._answers:
            return None
        self._answers.move_to_end(key)
        return self._answers[key]

    def put(self, key: str, answer: Any) -> None:
        """Cache an answer."""
        self._answers[key] = answer
        self._answers.move_to_end(key)
        while len(self._answers) > self._most:
            self._answers.popitem(last=False)


class RequestAnswers(MutableMapping[str, Any]):
    """The answers of one request: read from the cache, and kept apart until `commit`.

    Args:
        cache: the answers of earlier requests.

    Attributes:
        hits: answers that came from the cache.
    """

    def __init__(self, cache: AnswerCache) -> None:
        self._cache = cache
        self._new: dict[str, Any] = {}
        self.hits = 0

    def commit(self) -> None:
        """Cache what was answered."""
        for key, answer in self._new.items():
            self._cache.put(key, answer)

    def __getitem__(self, key: str) -> Any:
        if key in self._new:
            return self._new[key]
        answer = self._cache.get(key)
        if answer is None:
            raise KeyError(key)
        self.hits += 1
        return answer

    def __setitem__(self, key: str, answer: Any) -> None:
        self._new[key] = answer

    def __delitem__(self, key: str) -> None:
        del self._new[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._new)

    def __len__(self) -> int:
        return len(self._new)
