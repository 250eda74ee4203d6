"""One record of the released format for every task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from caslie_ray.tasks import RowError, Sample, find_task

PRP_OPTIONS = [
    "A: Users who buy product 1 may also buy product 2.",
    "B: Users who view product 1 may also view product 2.",
    "C: The product 1 is similar with the product 2.",
]

MPC_OPTIONS = [
    "A: The product is relevant to the query, and satisfies all the query specifications.",
    "B: The product is somewhat relevant. It fails to fulfill some aspects of the query but the product can be used as"
    " a functional substitute.",
    "C: The product does not fulfill the query, but could be used in combination with a product exactly matching the"
    " query.",
    "D: The product is irrelevant to the query.",
]

RECORDS: Mapping[str, Mapping[str, object]] = {
    "AP": {
        "input": json.dumps({"question": "Does it float?", "document": "Ours sank at once."}),
        "options": json.dumps(["yes", "no"]),
        "output": "no",
        "images": json.dumps(["https://a.example/duck.jpg"]),
    },
    "CC": {
        "input": json.dumps({"title": "Acme 3/8 in. drill"}),
        "options": json.dumps(["A: Power Drills", "B: Hand Saws"]),
        "output": "A: Power Drills",
        "images": json.dumps(["https://a.example/drill.jpg"]),
    },
    "PRP": {
        "input": json.dumps({"product 1": "Red mug", "product 2": "Blue saucer"}),
        "options": json.dumps(PRP_OPTIONS),
        "output": PRP_OPTIONS[0],
        "images": json.dumps(["mug.jpg", "saucer.jpg"]),
    },
    "PSI": {
        "input": json.dumps({"query": "cordless drill", "product title": "Corded drill"}),
        "options": json.dumps(["yes", "no"]),
        "output": "yes",
        "images": json.dumps(["corded.jpg"]),
    },
    "MPC": {
        "input": json.dumps({"query": "oak table", "product title": "Pine table"}),
        "options": json.dumps(["A: Exact", "B: Substitute", "C: Complement", "D: Irrelevant"]),
        "output": "B: Substitute",
        "images": json.dumps(["pine.jpg"]),
    },
    "SA": {
        "input": json.dumps({"review": "It broke after a day."}),
        "options": json.dumps(["A: very positive", "B: positive", "C: neutral", "D: negative", "E: very negative"]),
        "output": "E: very negative",
        "images": json.dumps(["broken.jpg"]),
    },
    "SR": {
        "input": json.dumps(["1st: Tent", "2nd: Stove"]),
        "options": json.dumps(["A: Kettle", "B: Tent"]),
        "output": "A: Kettle",
        "images": json.dumps(["tent.jpg", "stove.jpg", "kettle.jpg", "tent.jpg"]),
    },
}


def record(code: str, **changes: object) -> dict[str, object]:
    """The record of a task, with some cells changed."""
    return {"task": code, "split": "train", "instruction": "", **RECORDS[code], **changes}


def sample(code: str, **changes: object) -> Sample:
    """The same, parsed."""
    return find_task(code).parse(record(code, **changes))


def refusal(code: str, **changes: object) -> str:
    """Why it is refused."""
    with pytest.raises(RowError) as caught:
        sample(code, **changes)
    return str(caught.value)


def input_of(code: str) -> Any:
    """The input of a task's record, decoded."""
    text = RECORDS[code]["input"]
    assert isinstance(text, str)
    return json.loads(text)
