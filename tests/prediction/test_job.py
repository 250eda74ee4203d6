from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from caslie_ray.engines import Engine, EngineSpec, Failure, Generation, Request, load_engine
from caslie_ray.errors import PoolDown, RunError
from caslie_ray.fusion import fuse
from caslie_ray.pipeline.adapter_download import with_local_adapters
from caslie_ray.prediction import answerers_of, plan_prediction, predict
from caslie_ray.prediction._job import _Job
from caslie_ray.prediction._known_answers import PREDICTIONS
from caslie_ray.prediction._partition import PredictionSpec, merge_files
from caslie_ray.prediction.summary_lines import summary_lines
from caslie_ray.profiles import Profile, load_profile
from caslie_ray.prompts import Prompt
from caslie_ray.roles import Role
from caslie_ray.storage.run import Run, open_run
from caslie_ray.storage.schemas import SCHEMAS
from caslie_ray.tasks import TASKS
from caslie_ray.training import plan_training, train, trained_model, training_specs
from tests.object_store import object_store_in_environment
from tests.worlds import InProcess, caption_here, fresh_run

SETTINGS = [
    "captions.source=dataset",
    "votes.rule=always",
    "training.variants=[caslie,text]",
    "experiments.shuffled=false",
    "training.num_workers={min: 1, max: 1}",
    "training.validations=1",
    "training.global_batch=8",
    "training.epochs=1",
    "training.resources.cpus=0.5",
    "training.learning_rate=0.01",
    "lineup.base.resources.cpus=0.5",
    "lineup.base.max_new_tokens=12",
    "storage.block_rows=16",
]
VARIANTS = ("caslie", "text")


def chosen(*settings: str) -> Profile:
    return load_profile("mini", [*SETTINGS, *settings])


@pytest.fixture(scope="module")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with instructions and two trained models."""
    run = fresh_run(world, tmp_path_factory.mktemp("predict") / "run")
    caption_here(run, chosen(), InProcess())
    fuse(run, chosen(), quiet=True)
    train(run, chosen(), quiet=True)
    return Path(run.root)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    return fresh_run(trained, tmp_path / "run")


def predictions(run: Run) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["sample_id"], row["variant"]): row for row in run.read(PREDICTIONS).to_pylist()}


def asked(run: Run, splits: tuple[str, ...] = ("ind", "ood")) -> set[str]:
    rows = run.read("samples", ["sample_id", "split"]).to_pylist()
    return {row["sample_id"] for row in rows if row["split"] in splits}


def test_every_model_answers_every_question_once(run: Run) -> None:
    assert plan_prediction(run, chosen())[-1] == f"model calls    {2 * len(asked(run))}"
    result = predict(run, chosen("prediction.base=true"), quiet=True)
    assert result.missing == 0
    found = predictions(run)
    assert set(found) == {(sample, variant) for sample in asked(run) for variant in ("base", "caslie", "text")}
    assert len(run.files(PREDICTIONS)) == len({run.partition(path) for path in run.files(PREDICTIONS)})
    assert sum(run.count_rows(path) for path in run.files(PREDICTIONS)) == len(found)
    # Each adapter answers otherwise than the base, and than the other one.
    texts = {
        variant: [found[sample, variant]["text"] for sample in sorted(asked(run))]
        for variant in ("base", "caslie", "text")
    }
    assert len({tuple(said) for said in texts.values()}) == 3
    tasks = dict(
        zip(
            *(run.read("samples", ["sample_id", "task"])[name].to_pylist() for name in ("sample_id", "task")),
            strict=True,
        )
    )
    for (sample, _), row in found.items():
        assert row["failed"] == (row["answer"] is None)
        options = next(one["options"] for one in run.read("samples").to_pylist() if one["sample_id"] == sample)
        assert row["answer"] == TASKS[tasks[sample]].read_answer(row["text"], options)


@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_adapters_of_a_mistral_base_answer_on_vllm_as_they_do_on_transformers(run: Run, tmp_path: Path) -> None:
    """Adapters of the head among them: the shape of CASLIE-M."""
    settings = ["prediction.splits=[ind]", "lineup.base.checkpoint=miniature:voter-mistral"]
    auto = chosen(*settings, "lineup.base.engine=auto")
    assert "lm_head" in auto.training.lora.targets
    engine = f"vllm · vLLM adapts {', '.join(auto.training.lora.targets)} (loaded as LlamaForCausalLM)"
    assert plan_training(run, auto)[-1].strip() == f"unim3 answers on {engine}"
    train(run, auto, quiet=True)
    other = fresh_run(Path(run.root), tmp_path / "vllm")
    assert plan_prediction(other, auto)[0] == f"model          unim3 on {engine}"
    result = predict(other, auto, quiet=True)
    assert result.missing == 0
    assert result.summary["engine"] == "vllm"
    predict_here(run, chosen(*settings))
    expected = {place: row["text"] for place, row in predictions(run).items()}
    assert {place: row["text"] for place, row in predictions(other).items()} == expected
    texts = {variant: [expected[sample, variant] for sample in sorted(asked(run, ("ind",)))] for variant in VARIANTS}
    assert texts["caslie"] != texts["text"]


def test_an_answer_is_the_engines_own_with_the_adapter(run: Run) -> None:
    predict_here(run, chosen())
    role, answerers = answerers_of(run, chosen())
    caslie = next(one for one in answerers if one.variant == "caslie")
    engine = load_engine(role.spec)
    row = next(
        row for row in run.read("instructions").to_pylist() if row["split"] == "ind" and row["variant"] == "caslie"
    )
    fields = tuple((start, end) for start, end in row["prompt_fields"])
    (said,) = engine.generate([Request("x", Prompt(row["prompt"], fields), adapter=caslie.adapter)])
    assert said.text == predictions(run)[row["sample_id"], "caslie"]["text"]


class Here:
    """Answers in this process, and counts what it was asked."""

    def __init__(self) -> None:
        self.calls = 0
        self._engines: dict[str, Engine] = {}

    def generate(self, role: Role, requests: Sequence[Request]) -> list[Generation]:
        self.calls += len(requests)
        if (name := repr(role.spec)) not in self._engines:
            self._engines[name] = load_engine(role.spec)
        return self._engines[name].generate(requests)


def predict_here(run: Run, profile: Profile, ask: Any = None) -> int:
    """Answer what is missing as the job does, with an engine of this process; return the calls."""
    asked: Any = ask or Here()
    before = getattr(asked, "calls", 0)
    base, answerers = answerers_of(run, profile)
    splits = tuple(profile.prediction.splits)
    spec = PredictionSpec(run, base, tuple(answerers), splits, profile.storage.block_rows, retry=True)
    for name in sorted({run.partition(path) for path in run.files("instructions")}):
        for block in spec.read(name):
            spec.write(spec.answer(block, [base.name], asked))
        merge_files(spec, name)
    return int(asked.calls - before)


def test_only_what_is_missing_is_asked(run: Run) -> None:
    ask = Here()
    assert predict_here(run, chosen("training.variants=[caslie]"), ask) == len(asked(run))
    assert predict_here(run, chosen("training.variants=[caslie]"), ask) == 0
    assert predict_here(run, chosen(), ask) == len(asked(run))
    assert predict_here(run, chosen("prediction.splits=[train]"), ask) == 2 * len(asked(run, ("train",)))
    # What was answered before is kept.
    assert {sample for sample, _ in predictions(run)} == asked(run, ("ind", "ood", "train"))
    # Nothing is left to do: no Ray is started, and no model loaded.
    assert predict(run, chosen(), quiet=True).summary["this_session"]["model_calls"] == 0


def test_only_footers_of_finished_partitions_are_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    predict_here(run, chosen())
    summary = predict(run, chosen(), quiet=True).summary
    read: list[str] = []
    read_file = Run.read_file

    def noted(self: Run, path: str, *arguments: Any, **named: Any) -> pa.Table:
        read.append(path)
        return read_file(self, path, *arguments, **named)

    monkeypatch.setattr(Run, "read_file", noted)
    again = predict(run, chosen(), quiet=True).summary
    assert {**again, "this_session": None} == {**summary, "this_session": None}
    assert not [path for path in read if PREDICTIONS in path]
    # A file without the marker, as of older versions, is read and counts the same.
    for path in run.files(PREDICTIONS):
        run.write(PREDICTIONS, run.partition(path), read_file(run, path))
    older = predict(run, chosen(), quiet=True).summary
    assert {**older, "this_session": None} == {**summary, "this_session": None}
    assert [path for path in read if PREDICTIONS in path]
    # Without answers, prompts are not read.
    run.delete(run.files(PREDICTIONS))
    columns: list[Any] = []

    def noted_columns(self: Run, path: str, given: Any = None, *arguments: Any) -> pa.Table:
        columns.append(given)
        return read_file(self, path, given, *arguments)

    job = _Job(run, chosen(), quiet=True)
    monkeypatch.setattr(Run, "read_file", noted_columns)
    statuses = job.survey(job.names, retry=True)
    assert sum(status.missing for status in statuses.values()) == 2 * len(asked(run))
    assert all("prompt" not in given for given in columns[: len(job.names)])


@pytest.mark.usefixtures("ray_cluster")
def test_a_survey_in_tasks_finds_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    predict_here(run, chosen("training.variants=[caslie]"))
    job = _Job(run, chosen(), quiet=True)
    here = job.survey(job.names, retry=True)
    assert not job.distributed
    monkeypatch.setattr("caslie_ray.cluster.distribution.DISTRIBUTE_FROM", 1)
    job = _Job(run, chosen(), quiet=True)
    assert job.distributed
    assert job.survey(job.names, retry=True) == here


def test_captions_that_leave_no_room_lose_words_and_are_counted(run: Run) -> None:
    path, table, long = next(
        (path, rows, row)
        for path in run.files("instructions")
        for rows in [run.read_file(path).to_pylist()]
        for row in rows
        if row["split"] == "ind" and row["variant"] == "caslie" and row["prompt_captions"]
    )
    (start, end), *_ = long["prompt_captions"]
    caption = "a red mug of steel " * 400
    long["prompt"] = long["prompt"][:start] + caption + long["prompt"][end:]
    long["prompt_captions"] = [[start, start + len(caption)]]
    long["prompt_fields"] = [span for span in long["prompt_fields"] if span[1] <= start]
    run.write("instructions", run.partition(path), pa.Table.from_pylist(table, schema=SCHEMAS["instructions"]))
    predict_here(run, chosen())
    row = predictions(run)[long["sample_id"], "caslie"]
    assert (row["error"], row["cut"], row["captions_cut"]) == (None, False, True)
    summary = predict(run, chosen(), quiet=True).summary
    assert summary["captions_cut"] == {"caslie": 1, "text": 0}
    assert any(line.endswith("captions shortened in 1 prompts") for line in summary_lines(summary))


def test_another_prompt_or_another_adapter_is_asked_again(run: Run) -> None:
    predict_here(run, chosen())
    path, table, changed = next(
        (path, rows, row)
        for path in run.files("instructions")
        for rows in [run.read_file(path).to_pylist()]
        for row in rows
        if row["split"] == "ind" and row["variant"] == "caslie"
    )
    changed["prompt"] += "\nAnswer."
    run.write("instructions", run.partition(path), pa.Table.from_pylist(table, schema=SCHEMAS["instructions"]))
    assert predict_here(run, chosen()) == 1
    (record,) = Path(run.root).glob("models/text-*/training.json")
    other = json.loads(record.read_text())
    other["adapters"] = dict.fromkeys(other["adapters"], "trained anew")
    record.write_text(json.dumps(other))
    assert predict_here(run, chosen()) == len(asked(run))
    assert len(predictions(run)) == 2 * len(asked(run))


def test_source_ids_reach_answers_that_were_given_before(run: Run) -> None:
    """A source that gives its rows ids later asks nothing again."""
    predict_here(run, chosen())
    before = predictions(run)
    assert {row["source_ids"] and tuple(row["source_ids"]) for row in before.values()} == {None}
    for path in run.files("instructions"):
        table = [row | {"source_ids": ["id", row["sample_id"]]} for row in run.read_file(path).to_pylist()]
        run.write("instructions", run.partition(path), pa.Table.from_pylist(table, schema=SCHEMAS["instructions"]))
    assert predict(run, chosen(), quiet=True).summary["this_session"]["model_calls"] == 0
    expected = {place: row | {"source_ids": ["id", row["sample_id"]]} for place, row in before.items()}
    assert predictions(run) == expected
    stamps = {path: Path(path).stat().st_mtime_ns for path in run.files(PREDICTIONS)}
    assert predict(run, chosen(), quiet=True).missing == 0
    assert {path: Path(path).stat().st_mtime_ns for path in run.files(PREDICTIONS)} == stamps
    # The training data is the same, so no model is retrained.
    assert trained_model(run, training_specs(chosen())[0]) is not None
    # Answers that are given now have them from the start.
    assert predict_here(run, chosen("prediction.splits=[train]")) == 2 * len(asked(run, ("train",)))
    assert all(row["source_ids"] == ["id", sample] for (sample, _), row in predictions(run).items())


def test_damaged_files_and_failures_that_may_pass_are_asked_again(run: Run) -> None:
    predict_here(run, chosen())
    (first, second, *_) = run.files(PREDICTIONS)
    lost = run.count_rows(first)
    Path(first).write_bytes(Path(first).read_bytes()[:-40])
    rows = run.read_file(second).to_pylist()
    rows[0] |= {"text": None, "answer": None, "failed": True, "error": "out of memory", "retryable": True}
    rows[1] |= {"text": None, "answer": None, "failed": True, "error": "poison", "retryable": False}
    run.write(PREDICTIONS, run.partition(second), pa.Table.from_pylist(rows, schema=SCHEMAS[PREDICTIONS]))
    assert predict_here(run, chosen()) == lost + 1
    assert [row["error"] for row in predictions(run).values() if row["error"]] == ["poison"]


def test_a_question_that_no_answer_fits_is_an_error_row(run: Run) -> None:
    class Broken(Here):
        def generate(self, role: Role, requests: Sequence[Request]) -> list[Generation]:
            self.calls += len(requests)
            return [Generation(one.key, "", 0, 0, False, Failure("too long", retryable=False)) for one in requests]

    predict_here(run, chosen("training.variants=[caslie]"), Broken())
    rows = list(predictions(run).values())
    assert {(row["error"], row["failed"], row["answer"]) for row in rows} == {("too long", True, None)}
    assert predict_here(run, chosen("training.variants=[caslie]")) == 0


def test_without_models_or_instructions_the_error_names_the_command(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no trained model uia: run train first, with the same profile"):
        predict(run, chosen("training.variants=[caslie,uia]"), quiet=True)
    with pytest.raises(RunError, match="run fuse"):
        predict(open_run(str(tmp_path / "empty")), chosen(), quiet=True)


def test_adapters_on_an_object_store_answer_alike(run: Run) -> None:
    role, (caslie, _) = answerers_of(run, chosen())
    with object_store_in_environment(["shop"]) as store:
        far = open_run(store.uri("shop", "run"))
        for path in Path(run.root).rglob("*"):
            if path.is_file() and path.relative_to(run.root).parts[0] in ("instructions", "samples", "models"):
                far.put(far.path(*path.relative_to(run.root).parts), path.read_bytes())
        model = trained_model(far, training_specs(chosen())[0])
        assert model is not None
        assert "://" in model.adapter
        spec = EngineSpec("miniature:unim3-base", context=256, max_new_tokens=12, adapters={"a": model.adapter})
        fetched = load_engine(with_local_adapters(spec))
    near = load_engine(
        EngineSpec("miniature:unim3-base", context=256, max_new_tokens=12, adapters={"a": role.spec.adapters["caslie"]})
    )
    assert caslie.adapter == "caslie"
    question = [Request("0", Prompt("Is it red?"), adapter="a")]
    assert (
        fetched.choose(question, ("yes", "no"))[0].probabilities
        == near.choose(question, ("yes", "no"))[0].probabilities
    )


def test_a_base_that_fits_no_machine_here_is_refused_immediately(trained: Path) -> None:
    with pytest.raises(
        PoolDown, match=r"unim3: 50 CPUs are needed and this machine has 2; lower resources, alone or pool.min"
    ):
        predict(open_run(str(trained)), chosen("lineup.base.alone.cpus=50", "storage.block_rows=17"), quiet=True)
