"""Rows of the released form keep their ids and prompts: captions, votes and answers of older runs stay valid."""

from __future__ import annotations

import pytest

from caslie_ray.hashing import content_id
from caslie_ray.tasks import TASKS
from tests.tasks.records import MPC_OPTIONS, sample

KNOWN: list[tuple[str, dict[str, object], str, str]] = [
    ("AP", {}, "20829e2cdd88e0fba7c2779cc9327a7b", "afe8c926c2e7c7196b4968f9059635a0"),
    ("CC", {}, "d2c8f3595e086d9733b65921c4a835ed", "b6067cf95f99da314c4d00790df45121"),
    ("PRP", {}, "ac4fc7b115cfbb88c7f1f7109d5e1b63", "7ff4fb7d4b01e8a1f2c35b04f1c3f77f"),
    ("PSI", {}, "5f88169161e84a86a19ac12c32bf9027", "79a3b432504966c4b7c0a6c3631497b8"),
    ("MPC", {}, "f067eea879730be13d6aba4ffd3045c1", "60f0beb2579afd6e71b4fb319471bb85"),
    ("SA", {}, "769c9fda02a887c5ba65314dc88389b7", "660b40b56c9948294a2d78ebaa83f2b0"),
    ("SR", {}, "c1bd6c89480355a7bd7378ac7c9463ff", "4c764cadb5b1d7b2c78eac072658a38b"),
    ("CC", {"output": "A"}, "3a98d3ba1855b600e0f3135e78f7f850", "b6067cf95f99da314c4d00790df45121"),
    ("SR", {"output": "b"}, "3d0a9f5739f44981ff1bb70970e05689", "4c764cadb5b1d7b2c78eac072658a38b"),
    (
        "SA",
        {"options": ["very positive", "positive", "neutral", "negative", "very negative"], "output": "positive"},
        "fcc302330cdb2dc6d2b723dfed70eb88",
        "8fc188ded1548af8040027bf88892790",
    ),
    (
        "MPC",
        {"options": MPC_OPTIONS, "output": MPC_OPTIONS[2]},
        "aeedee40a18415d73934aebe7127b24f",
        "fca491fb1b2885bb4fabe0389a0521f3",
    ),
    (
        "PRP",
        {"options": ["also buy", "also view", "similar"], "output": "also_buy"},
        "226c81a3f67c6fb3586958cc9cc6ea99",
        "c8c393db8579115ec09ddd2281ed869c",
    ),
    (
        "SA",
        {"options": ["A) very positive", "B) positive"], "output": "A"},
        "feba53eeeed5ba1e5cfddb13f33d98c2",
        "e8f3b64fdf1a36c44803bdf4c8915e2a",
    ),
    (
        "CC",
        {"options": {"first": "Saws", "second": "Drills"}, "output": "Saws"},
        "374b34343b1432cfa314d8e97ac1cd90",
        "a52760dfb5d78b7d8f1cf68c5cf38f9d",
    ),
    (
        "SA",
        {"input": "[Verified] great", "output": "B: positive"},
        "0b7815d1915eb6371163a182a310c3b2",
        "4c7f93f263345993461f571886b1af52",
    ),
    (
        "SA",
        {"input": {"review": "{sigh} it broke"}},
        "036811de515cabfe3f5437095644e37b",
        "f2b6b7064f03e4994c38b342df12de1e",
    ),
    (
        "AP",
        {"input": {"question": "Why?", "passage": "Because."}, "images": [None]},
        "8b7ddd0a57af78ababca9dcfdcd01ddd",
        "aaf4e211b2c50cbda6d08716bd09504b",
    ),
    (
        "PSI",
        {"options": None, "output": "Yes."},
        "5eaf67dd146a90c0d18b06ba21f89c51",
        "79a3b432504966c4b7c0a6c3631497b8",
    ),
    (
        "CC",
        {"images": [{"path": "a.jpg", "url": "https://a.example/a"}]},
        "7f7274e527c0df29fe0a2c2efe21b14d",
        "b6067cf95f99da314c4d00790df45121",
    ),
    ("PRP", {"images": ["a.jpg", None]}, "5ff9759d660df751eac0de0d6552187d", "7ff4fb7d4b01e8a1f2c35b04f1c3f77f"),
    (
        "SR",
        {"options": ['A: "quoted"', "B: Tent"], "output": '"quoted"'},
        "984e402210f3b9c3e14ef94049f5d00e",
        "9bf7a945dee6fdbe05f294ec96933bd7",
    ),
    (
        "SR",
        {"options": ["A: (5, 4)", "B: Tent"], "output": "(5, 4)"},
        "69290a736d02a63540aaa18d0ff854be",
        "0b900dae9267a5ce2301283322f45c69",
    ),
    (
        "SR",
        {"options": ["A: [1]", "B: Tent"], "output": "[1]"},
        "237b75fca1e72cd6b15d6c491de9ebbd",
        "92f2471c3efe186694b46f609f009c9d",
    ),
    (
        "SR",
        {"options": ["A: {5}", "B: Tent"], "output": "{5}"},
        "d7901dbb51b80c4b0ec152327ff6627c",
        "1fc4bca0c40b6329732351def091dc30",
    ),
    (
        "SR",
        {"options": ['A: ["a", "b"]', "B: Tent"], "output": '["a", "b"]'},
        "e5d016ed470997bf17be279c4d6fb556",
        "d6ce20981096baaf4e0f45c382b06c67",
    ),
    (
        "SR",
        {
            "options": [{"id": "B1", "title": "Lamp", "value": 12.99}, {"id": "B2", "title": "Tent", "value": 5}],
            "output": "Lamp",
        },
        "52dc587843180d1fa2c52ae3196631a4",
        "75cdf9abc9e42df8f2844773287fcf0b",
    ),
    ("SA", {"input": "(5, 4)"}, "41656af1d31fa1ac5fa4dd3b8d9320d5", "c9f456c484357a102be4cb651e254767"),
    ("SA", {"input": '("a","b")'}, "cc4751334c18953e8d48f3723dfa1eec", "b1b15f4fa61f79e23c2d83063e54361f"),
    ("SA", {"input": "[True]"}, "c6a30dab0d7ebd6c9ab3b19e257f9998", "f73c36d49e9e9f96f33228190c35c588"),
]
"""Task, cells that differ from its record, sample id, hash of all prompts; as they were in the first release."""


@pytest.mark.parametrize(("code", "cells", "sample_id", "prompts"), KNOWN)
def test_ids_and_prompts_stay(code: str, cells: dict[str, object], sample_id: str, prompts: str) -> None:
    row = sample(code, **cells)
    task = TASKS[row.task]
    views = [text for view in task.view_prompts(row) for text in (view.caption.text, view.quality.text)]
    assert row.sample_id == sample_id
    assert content_id(*views, task.prompt(row, ["a mug"] * len(row.images)).text) == prompts
