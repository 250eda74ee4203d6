"""Which tasks there are, and how one more is added."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from caslie_ray import tasks
from caslie_ray.tasks import TASKS, find_task
from caslie_ray.tasks._definition_checks import check_distinct
from tests.tasks.records import RECORDS


def test_seven_tasks_in_the_papers_order() -> None:
    assert [task.code for task in TASKS.values()] == ["AP", "CC", "PRP", "PSI", "MPC", "SA", "SR"]
    assert all(name == task.name for name, task in TASKS.items())


def test_a_task_defines_its_templates_and_a_cue_per_label() -> None:
    for task in TASKS.values():
        assert task.quality_template.count("{{caption}}") == 1, task.code
        assert "{{caption}}" not in task.caption_template
        assert set(task.cues) == set(task.labels)


def test_a_task_is_found_by_its_name_and_code_however_they_are_written() -> None:
    own = replace(TASKS["sentiment_analysis"], name="Tone-of_Voice", code="T-V")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, own.name, own)
        for name in ("Tone-of_Voice", "tone of voice", "TONEOFVOICE", "T-V", "tv", "t_v"):
            assert find_task(name) is own


def test_two_tasks_have_no_name_in_common() -> None:
    other = replace(TASKS["sentiment_analysis"], name="a_p")
    with pytest.raises(ValueError, match=r"tasks answerability_prediction \(AP\) and a_p \(SA\) have a name or code"):
        check_distinct([TASKS["answerability_prediction"], other])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"code": "S/A"}, "code 'S/A' of a task names folders and columns: use letters"),
        ({"name": ""}, "name '' of a task"),
        ({"cues": {"positive": ("positive",)}}, r"cues for \(positive\): give each label its cues"),
        ({"quality_template": "Does it help?"}, "task SA: write {{caption}} once in quality_template"),
        ({"caption_template": "Of {{caption}}"}, "and not in caption_template"),
        ({"caption_template": "Of {{reveiw}}"}, "no input fills the slot {{reveiw}} of its templates; the inputs fill"),
    ],
)
def test_a_definition_that_contradicts_itself_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(TASKS["sentiment_analysis"], **change)


@pytest.mark.parametrize("code", RECORDS)
def test_a_task_is_a_file_of_its_name(code: str) -> None:
    name = next(task.name for task in TASKS.values() if task.code == code)
    assert (Path(tasks.__path__[0]) / f"{name}.py").is_file()
