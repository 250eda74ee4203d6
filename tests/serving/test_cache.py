from __future__ import annotations

from caslie_ray.serving._cache import AnswerCache, RequestAnswers


def test_the_least_recently_used_answer_goes_first() -> None:
    cache = AnswerCache(2)
    for key in "ab":
        cache.put(key, key.upper())
    assert cache.get("a") == "A"
    cache.put("c", "C")
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == ("A", None, "C")


def test_nothing_is_cached_where_the_limit_is_zero() -> None:
    cache = AnswerCache(0)
    cache.put("a", 1)
    assert len(cache) == 0


def test_answers_of_a_request_are_cached_once_it_commits() -> None:
    cache = AnswerCache(10)
    first = RequestAnswers(cache)
    first["a"] = 1
    assert first["a"] == 1
    assert (first.hits, len(cache)) == (0, 0)
    assert RequestAnswers(cache).get("a") is None
    first.commit()
    second = RequestAnswers(cache)
    assert second["a"] == 1
    assert second.hits == 1
