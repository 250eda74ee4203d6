import pytest

from caslie_ray.miniature._samples import MAKERS
from caslie_ray.miniature.rates import ALL, TaskRates, main, rates_of
from caslie_ray.tasks import find_task

SAMPLES = 40_000


@pytest.fixture(scope="module", params=tuple(MAKERS))
def measured(request: pytest.FixtureRequest) -> tuple[str, TaskRates]:
    return request.param, rates_of(request.param, SAMPLES)


def test_no_label_has_other_rates_than_its_task(measured: tuple[str, TaskRates]) -> None:
    task, rates = measured
    assert rates.samples == sum(rates.counts[ALL, 0].values()) == SAMPLES
    assert set(rates.labels) == set(find_task(task).labels or map(str, range(1, len(rates.labels) + 1)))
    assert len(rates.labels) >= 2
    assert rates.furthest <= 0.02
    assert min(rates.mean(label, "useful") for label in rates.labels) > 0.2
    assert min(rates.mean(label, "misleading") for label in rates.labels) > 0.15


def test_usefulness_alone_does_not_predict_the_label(measured: tuple[str, TaskRates]) -> None:
    _, rates = measured
    assert rates.bits["n"] == SAMPLES // 2
    assert rates.bits["gain"]["value"] <= 0.01
    assert rates.bits["mutual_information"]["low"] < 0.001


def test_both_tables_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--samples", "600", "--domain", "sports"]) == 0
    said = capsys.readouterr().out
    assert all(f"| {task} |" in said and f"| {task}, " in said for task in MAKERS)
    assert "| AP, yes |" in said
