"""Which tests run only in `make verify`, and which short test holds their promise in `make test`.

`make test` takes at most 15 minutes on two idle cores. A test that is too long for it is an entry of `LONG_TESTS`;
`tests/conftest.py` marks it with `verify`, and `tests/test_ci.py` checks that no entry is out of date.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

__all__ = ["CHECK_DEMO", "COLLECTED", "FILE_SECONDS", "LONG_TESTS", "LongTest", "file_seconds", "is_long"]

COLLECTED = pytest.StashKey[list[str]]()
"""The node ids that a session has collected, before any are deselected."""
CHECK_DEMO = "make check-demo"
"""Runs in `.ci/run`, too."""


class LongTest(NamedTuple):
    """Tests that are left to `make verify`.

    Attributes:
        prefix: beginning of their node ids: a file, a test, or a test with the first of its parameters.
        seconds: what they take together on two idle cores, roughly.
        short: node id prefixes of the tests in `make test` that hold the promise in a shorter form, or `CHECK_DEMO`;
            empty for what only the long test can show, such as a duration, a rate, or a cluster of its own.
    """

    prefix: str
    seconds: int
    short: tuple[str, ...] = ()


_FAULTS = "tests/test_faults.py::test_fault"
_TRAINING_FAULTS = "tests/test_training_faults.py::test_fault"
_VLLM = "tests/engines/test_vllm.py::"
_LEASE = "tests/storage/test_lease.py::"
_LOAD_POLICY = "tests/pipeline/test_load_policy.py::"
_ROUTER = "tests/pipeline/test_router.py::"
_CAPTION_JOB = "tests/captioning/test_job.py::"
_CLAIM_AT_ONCE = "test_of_processes_that_claim_at_once_exactly_one_has_the_run"
_DAMAGE = "tests/dataset/test_damage.py::"
_MANY_DAMAGED = "test_many_damaged_files_are_replaced_at_once"
_HOSTILE_IMAGE = "tests/hostile/test_images.py::test_a_hostile_image_costs_little"
_HOSTILE_SOURCE = "tests/hostile/test_sources.py::test_a_hostile_source_costs_little_and_is_refused"
_TROUBLE = "tests/dataset/test_ingest.py::test_every_kind_of_trouble_costs_only_itself"
_RATES = "tests/miniature/test_rates.py::test_no_label_has_other_rates_than_its_task"
_VLLM_ANSWERS = f"{_VLLM}test_votes_and_texts_are_those_of_transformers_with_every_adapter"
_ENGINE_IS_CHOSEN = "tests/engines/test_vllm_adapters.py::test_the_engine_is_chosen_by_what_is_to_be_adapted"
_PIPELINE = "tests/test_pipeline.py::test_the_pipeline_from_a_source_to_instructions_and_again"
_RESUMED = "tests/captioning/test_scale.py::test_a_resumed_run_reads_rows_of_unfinished_partitions_only"
_LOST_NODE = f"{_FAULTS}[300-a-node-is-lost-at-50%]"

LONG_TESTS = (
    # Faults of the caption job: one of each kind stays.
    LongTest(f"{_FAULTS}[1000-", 1200, (f"{_FAULTS}[300-",)),
    LongTest(f"{_FAULTS}[300-a-node-is-added]", 40, (_LOST_NODE,)),
    LongTest(f"{_FAULTS}[300-a-node-is-drained", 20, (f"{_ROUTER}test_a_replica_whose_node_will_be_taken_away",)),
    LongTest(
        f"{_FAULTS}[300-the-driver-is-killed]", 35,
        (_RESUMED, f"{_LEASE}test_a_holder_whose_process_is_gone_is_taken_over_at_once[disk-9]"),
    ),
    LongTest(
        f"{_FAULTS}[300-the-driver-is-told-to-end]", 25,
        ("tests/test_cli.py::test_a_stopped_process_says_run_again",
         f"{_LEASE}test_a_released_run_is_had_at_once[disk]"),
    ),
    LongTest(
        f"{_FAULTS}[300-a-second-job-on-the-same-run]", 5,
        (f"{_LEASE}test_a_second_job_is_refused_and_told_who_holds_the_run",),
    ),
    LongTest(f"{_FAULTS}[300-the-source-changed]", 30, ("tests/captioning/test_answers.py::test_ten_new_products",)),
    LongTest(f"{_FAULTS}[300-the-lineup-changed]", 20, ("tests/captioning/test_answers.py::test_a_changed_voter",)),
    LongTest(
        f"{_FAULTS}[300-the-object-store-answers-500]", 40,
        ("tests/storage/test_stores.py::test_a_burst_of_failures_passes_unseen",),
    ),
    LongTest(
        f"{_FAULTS}[300-the-object-store-says-nothing]", 0, ("tests/storage/test_stores.py::test_a_hang_is_waited_for",)
    ),
    LongTest(
        f"{_FAULTS}[300-the-object-store-is-slow]", 0,
        ("tests/storage/test_stores.py::test_a_slow_store_is_no_failure",),
    ),
    LongTest(
        f"{_FAULTS}[300-the-object-store-refuses]", 25,
        ("tests/storage/test_stores.py::test_a_store_that_refuses_ends_it_at_once",),
    ),
    LongTest(
        f"{_FAULTS}[300-a-dead-writer-left-a-file-that-is-no-Parquet]", 15,
        ("tests/captioning/test_ledger.py::test_of_a_damaged_file_the_answers_that_can_be_read_are_used",
         "tests/storage/test_run.py::test_a_damaged_file_is_named"),
    ),
    LongTest(
        f"{_FAULTS}[300-a-file-was-cut-short]", 0, ("tests/storage/test_run.py::test_a_damaged_file_is_named[cut",)
    ),
    LongTest(
        f"{_FAULTS}[300-an-empty-file,-and-a-temporary-one]", 0,
        ("tests/storage/test_run.py::test_a_damaged_file_is_named[empty",
         "tests/storage/test_run.py::test_no_reader_sees_a_temporary_file"),
    ),
    LongTest(f"{_FAULTS}[300-a-node-is-lost-in-the-staged-schedule]", 25, (_LOST_NODE,)),
    LongTest(
        f"{_FAULTS}[300-the-head-is-lost", 90,
        (_RESUMED, f"{_LEASE}test_a_holder_on_another_machine_that_is_silent"),
    ),
    # Faults of training and prediction: a preempted node stays.
    LongTest(
        f"{_TRAINING_FAULTS}[nothing]", 20,
        ("tests/training/test_job.py::test_curves_and_both_adapters_are_kept",
         "tests/training/test_learner.py::test_the_loss_falls"),
    ),
    LongTest(
        f"{_TRAINING_FAULTS}[nothing,-on-two-nodes]", 25,
        ("tests/training/test_parallel.py::test_two_workers_train_what_one_trains",),
    ),
    LongTest(f"{_TRAINING_FAULTS}[a-node-is-lost-while-a-model-is-trained]", 60, (f"{_TRAINING_FAULTS}[a-node-is-p",)),
    LongTest(f"{_TRAINING_FAULTS}[a-node-is-drained", 40, (f"{_TRAINING_FAULTS}[a-node-is-preempted",)),
    LongTest(f"{_TRAINING_FAULTS}[nodes-are-drained-more-often", 45, (f"{_TRAINING_FAULTS}[a-node-is-preempted",)),
    LongTest(
        f"{_TRAINING_FAULTS}[the-driver-", 80,
        (f"{_TRAINING_FAULTS}[a-node-is-preempted", "tests/test_cli.py::test_a_stopped_process"),
    ),
    LongTest(f"{_TRAINING_FAULTS}[a-node-is-lost-while-models-answer]", 50, (_LOST_NODE,)),
    LongTest("tests/test_soak.py", 3600, (_LOST_NODE, _RESUMED)),
    # vLLM: one engine with adapters stays.
    LongTest(f"{_VLLM}test_captions_of_odd_images_are_those_of_transformers", 40, (_VLLM_ANSWERS,)),
    LongTest(f"{_VLLM}test_votes_of_a_real_model_are_those_of_transformers", 150, (_VLLM_ANSWERS,)),
    LongTest(f"{_VLLM}test_an_engine_whose_process_is_killed", 40, (f"{_FAULTS}[300-a-replica-is-killed]",)),
    LongTest(f"{_VLLM}test_an_engine_ends_with_its_owner", 40),
    LongTest(f"{_VLLM}test_weights_that_are_cut_off", 25, ("tests/engines/test_load_errors.py",)),
    LongTest(f"{_VLLM}test_an_adapter_that_vllm_does_not_apply", 40, (_ENGINE_IS_CHOSEN,)),
    LongTest(
        "tests/engines/test_vllm_adapters.py::test_answers_are_those_of_transformers_with_every_adapter_and_without",
        180, (_VLLM_ANSWERS, _ENGINE_IS_CHOSEN),
    ),
    LongTest("tests/captioning/test_vllm.py", 600, (_VLLM_ANSWERS, f"{_CAPTION_JOB}test_both_schedules")),
    LongTest(
        "tests/prediction/test_job.py::test_adapters_of_a_mistral_base_answer_on_vllm", 90,
        (_VLLM_ANSWERS, _ENGINE_IS_CHOSEN),
    ),
    LongTest(
        "tests/training/test_families.py::test_vllm_answers_with_a_trained_adapter_and_with_the_merged_model", 90,
        (_VLLM_ANSWERS, "tests/training/test_families.py::test_an_adapter_is_trained_saved_and_merged"),
    ),
    LongTest(
        "tests/test_pipeline.py::test_a_plan_names_the_engine_of_the_base", 40,
        (_ENGINE_IS_CHOSEN, "tests/test_pipeline.py::test_a_plan_of_an_empty_run_starts_nothing"),
    ),
    # The demo and the experiments.
    LongTest("tests/test_ablation.py", 2400, (CHECK_DEMO,)),
    LongTest("tests/test_experiments.py", 500, ("tests/test_pipeline.py::test_a_plan_lists_the_models",)),
    LongTest(
        "tests/test_pipeline.py::test_every_experiment", 300, ("tests/test_pipeline.py::test_a_plan_lists_the_models",)
    ),
    LongTest("tests/evaluation/test_measured.py", 300),
    LongTest(
        "tests/captioning/test_whole_world.py", 900,
        ("tests/captioning/test_answers.py::test_early_exit_gives_the_verdicts_of_a_full_vote",
         "tests/captioning/test_answers.py::test_early_exit_with_failing_voters"),
    ),
    # Benchmarks and scale.
    LongTest(
        "tests/benchmark/test_quick.py", 155, ("tests/benchmark/test_report.py", "tests/benchmark/test_published.py")
    ),
    LongTest("tests/benchmark/test_ray_llm.py::test_it_answers_all_requests", 400),
    LongTest(
        "tests/captioning/test_scale.py::test_a_million_views", 2400,
        ("tests/captioning/test_scale.py::test_every_view_has_one_row_and_every_partition_one_file",),
    ),
    LongTest("tests/dataset/test_large.py", 200, ("tests/dataset/test_shapes.py",)),
    # Clusters of their own.
    LongTest(
        "tests/captioning/test_hub.py::test_a_job_downloads_its_model_once", 40,
        ("tests/engines/test_hub.py::test_processes_that_start_at_once_download_once",
         "tests/engines/test_hub.py::test_what_is_there_takes_no_hub"),
    ),
    LongTest(
        "tests/captioning/test_hub.py::test_a_voter_that_can_never_be_loaded", 20,
        ("tests/pipeline/test_passes.py::test_a_model_that_can_never_be_loaded",),
    ),
    LongTest(
        "tests/captioning/test_hub.py::test_a_quorum_goes_on", 25,
        (f"{_FAULTS}[300-a-voter-cannot-be-loaded,-and-the-quorum-decides]",),
    ),
    LongTest(
        "tests/pipeline/test_gpus.py", 60,
        ("tests/pipeline/test_placement.py::test_a_pool_without_limit_takes_what_the_cluster_can_have",
         "tests/pipeline/test_placement.py::test_the_captioner_gets_what_voters_leave"),
    ),
    LongTest(
        "tests/cluster/test_capacity.py::test_a_job_says_at_once_that_a_cluster", 25,
        ("tests/cluster/test_capacity.py::test_an_autoscaler_is_given", "tests/cluster/test_shortage.py"),
    ),
    LongTest(
        "tests/cluster/test_preemption.py::test_a_spot_node_is_drained_in_time_and_no_other", 25,
        ("tests/cluster/test_preemption.py::test_no_notice_is_none_and_a_notice_is_read",
         f"{_TRAINING_FAULTS}[a-node-is-preempted"),
    ),
    LongTest(
        f"{_LOAD_POLICY}test_a_replica_goes_to_another_node_where_one_is_broken", 40,
        (f"{_LOAD_POLICY}test_a_node_at_fault_is_left_at_once",),
    ),
    LongTest(
        f"{_LOAD_POLICY}test_a_cluster_that_", 120,
        (f"{_LOAD_POLICY}test_without_another_node", f"{_ROUTER}test_another_node_that_never_comes"),
    ),
    LongTest(
        f"{_LOAD_POLICY}test_a_load_that_fails_for_a_while_is_tried_again", 20,
        (f"{_LOAD_POLICY}test_a_job_is_complete_though_the_hub_failed_twice",),
    ),
    LongTest(
        f"{_LOAD_POLICY}test_tries_are_bounded_and_logged_while_models_load", 10,
        (f"{_LOAD_POLICY}test_pauses_double", f"{_ROUTER}test_a_start_without_news_says_the_last_failure"),
    ),
    LongTest(
        f"{_LOAD_POLICY}test_a_pool_that_is_not_needed_is_given_up", 15,
        (f"{_ROUTER}test_the_others_go_on_without_a_pool_that_is_not_needed",),
    ),
    LongTest(
        f"{_LOAD_POLICY}test_extra_replicas_that_cannot_be_loaded", 20,
        (f"{_ROUTER}test_extra_replicas_that_fail_to_load_are_tried_again_and_given_up",),
    ),
    LongTest("tests/monitoring/test_prometheus.py::test_a_job_tells_prometheus_how_it_fares", 60),
    LongTest("tests/test_submission.py", 200, (_PIPELINE, "tests/cluster/test_cluster_yaml.py::test_the_token")),
    # Jobs on the Ray of the tests.
    LongTest(
        f"{_CAPTION_JOB}test_a_row_that_kills_its_replica", 25, (f"{_FAULTS}[300-a-row-ends-its-replica's-process]",)
    ),
    LongTest(f"{_CAPTION_JOB}test_a_pool_on_a_share_of_a_gpu_is_placed", 10, ("tests/pipeline/test_placement.py",)),
    LongTest(
        f"{_CAPTION_JOB}test_a_truncated_file_of_a_dead_writer_is_asked_again", 10,
        ("tests/storage/test_run.py::test_a_damaged_file_is_named",),
    ),
    LongTest(
        f"{_CAPTION_JOB}test_a_plan_times_the_minimum_of_replicas_of_a_pool_without_limit", 25,
        (f"{_CAPTION_JOB}test_the_time_of_a_plan_is_scaled_to_the_planned_replicas_by_stage",),
    ),
    LongTest(
        f"{_CAPTION_JOB}test_a_failed_voter_is_asked_again_by_the_next_run", 20,
        ("tests/captioning/test_ledger.py::test_a_voter_that_comes_back_is_not_asked_again",),
    ),
    LongTest(
        "tests/training/test_job.py::test_training_ends_early_when_nothing_gets_better", 30,
        ("tests/training/test_job.py::test_the_lowest_loss_is_best",),
    ),
    LongTest(
        "tests/training/test_job.py::test_a_merge_that_did_not_end_is_done_again", 20,
        ("tests/training/test_job.py::test_a_merged_model_answers_as_base_and_adapter",),
    ),
    LongTest(
        "tests/training/test_out_of_memory.py::test_what_would_run_out_of_memory_again_is_not_tried_again", 20,
        ("tests/training/test_final_errors.py::test_only_what_every_retry_would_meet_again_ends_a_training",),
    ),
    LongTest(
        "tests/training/test_out_of_memory.py::test_one_of_two_workers_may_run_out_of_memory", 20,
        ("tests/training/test_out_of_memory.py::test_a_step_that_runs_out_of_memory_is_the_same_step",
         "tests/training/test_parallel.py::test_two_workers_train_what_one_trains"),
    ),
    *(
        LongTest(
            f"tests/training/test_families.py::test_an_adapter_is_trained_saved_and_merged[{family}-tied]", 4,
            (f"tests/training/test_families.py::test_an_adapter_is_trained_saved_and_merged[{family}-untied]",),
        )
        for family in ("mistral", "llama2")
    ),
    LongTest(
        "tests/training/test_learner.py::test_the_loss_of_smollm2_falls", 30,
        ("tests/training/test_learner.py::test_the_loss_falls", "tests/engines/test_loading.py::test_smollm2_chooses"),
    ),
    LongTest(
        "tests/test_pipeline.py::test_add_a_voter", 12,
        ("tests/captioning/test_answers.py::test_a_changed_voter_is_asked_alone",
         "tests/test_pipeline.py::test_the_readme_names_jobs_profiles_and_settings_that_exist"),
    ),
    LongTest(
        "tests/test_pipeline.py::test_swap_the_captioner", 20,
        ("tests/engines/test_transformers.py::test_the_answers_are_those_of_transformers_by_hand",
         "tests/captioning/test_answers.py::test_a_changed_caption_prompt_asks_for_that_view_only"),
    ),
    LongTest(
        "tests/test_cli.py::test_a_process_that_waits_for_ray_is_stopped_too", 10,
        ("tests/test_cli.py::test_a_stopped_process_says_run_again",),
    ),
    LongTest(
        "tests/cluster/test_cluster_yaml.py::test_a_job_starts_from_what_was_taken_along", 10,
        ("tests/cluster/test_cluster_yaml.py::test_a_working_directory_is_small_and_whole",),
    ),
    LongTest("tests/hostile/test_images.py::test_a_job_goes_through_all_of_them", 30, (_TROUBLE, _HOSTILE_IMAGE)),
    LongTest(
        "tests/hostile/test_sources.py::test_a_hostile_source_costs_its_neighbours_nothing", 30,
        (_TROUBLE, _HOSTILE_SOURCE),
    ),
    # Parts of one promise that differ in a parameter.
    LongTest(
        "tests/training/test_parallel.py::test_two_workers_train_what_one_trains[sharded]", 20,
        ("tests/training/test_parallel.py::test_two_workers_train_what_one_trains[copied]",),
    ),
    *(
        LongTest(f"{_RATES}[{code}", 3, (f"{_RATES}[AP",)) for code in ("CC", "MPC", "PRP", "PSI", "SA", "SR")
    ),
    *(
        LongTest(f"{_HOSTILE_IMAGE}[{name}]", 2, (f"{_HOSTILE_IMAGE}[{kept}]",))
        for name, kept in (
            ("JPEG, 261,770 scans", "JPEG, 400 scans"),
            ("TIFF, a JPEG of 99 scans", "JPEG, 90 scans, one second"),
            ("PNG, 16 bits, RGBA, 50 megapixels", "PNG, 16 bits, 50 megapixels"),
            ("TIFF, floats, 50 megapixels", "PNG, 16 bits, 50 megapixels"),
            ("BMP, 50 megapixels of skips", "PNG, 16 bits, 50 megapixels"),
            ("PNG, profile of 1 GB", "PNG, text of 1 GB"),
            ("PNG, 50,000,000 x 1", "PNG, 1 x 50,000,000"),
            ("WebP, 268 megapixels", "PNG, 60,000 x 60,000"),
        )
    ),
    *(
        LongTest(f"{_HOSTILE_SOURCE}[{name}]", 1, (f"{_HOSTILE_SOURCE}[{kept}]",))
        for name, kept in (
            ("dictionary of a text of 8 MiB", "dictionary of one long text"),
            ("delta encoding of one long text", "delta encoding in a list of one row"),
            ("small objects in a line, unpacked", "small objects in a line"),
            ("objects in one another, with their ends", "objects in one another"),
            ("long objects in one another in a damaged row", "objects in one another in a damaged row"),
            ("lists in one another in a line", "lists in one another"),
            ("a fraction of a million digits", "a number of a million digits"),
            ("spaces", "zeros"),
            ("braces", "quotes"),
        )
    ),
    *(
        LongTest(f"{_LEASE}{name}[s3", 4, (f"{_LEASE}{name}[disk",))
        for name in (
            "test_a_renewal_that_lands_after_a_takeover_gives_nothing_back",
            "test_a_clock_that_is_a_minute_ahead_takes_no_living_job_s_run",
            "test_a_stopped_holder_is_taken_over_and_does_nothing_more",
            "test_a_holder_whose_process_is_gone_is_taken_over_at_once",
            "test_a_released_run_is_had_at_once",
            "test_eight_restarts_in_a_row",
            "test_a_living_holder_renews_its_lease",
        )
    ),
    *(
        LongTest(f"{_LEASE}{_CLAIM_AT_ONCE}[{case}]", 8, (f"{_LEASE}{_CLAIM_AT_ONCE}[{kept}]",))
        for case, kept in (
            ("disk-8-3-", "disk-2-8-"), ("s3-8-3-", "s3-2-8-"), ("disk-8-1-machine", "disk-2-8-"),
            ("s3-8-1-machine", "s3-2-8-"),
        )
    ),
    *(
        LongTest(f"{_DAMAGE}test_a_damaged_file_is_replaced[{name}, emptied]", 4, (f"{_DAMAGE}{_MANY_DAMAGED}",))
        for name in ("images", "samples", "views", "rejects", "done")
    ),
    LongTest(
        f"{_DAMAGE}test_damaged_images_of_a_run_that_was_stopped_are_fetched_again[emptied]", 4,
        (f"{_DAMAGE}test_damaged_images_of_a_run_that_was_stopped_are_fetched_again[cut]",),
    ),
    LongTest(
        f"{_DAMAGE}test_a_damaged_file_with_a_whole_footer_is_replaced[views]", 4,
        (f"{_DAMAGE}test_a_damaged_file_with_a_whole_footer_is_replaced[images]",),
    ),
    LongTest(
        "tests/hostile/test_texts.py::test_a_hostile_text_is_text[title of a million characters]", 16,
        ("tests/captioning/test_answers.py::test_a_prompt_of_a_million_characters_is_cut_and_flagged",),
    ),
    *(
        LongTest(
            f"tests/miniature/test_training.py::{name}", 15,
            ("tests/miniature/test_training.py::test_a_run_that_was_stopped_ends_like_one_that_was_not",),
        )
        for name in (
            "test_the_captioner_trains_resumes", "test_a_voter_trains_resumes", "test_a_base_that_was_stopped",
        )
    ),
    LongTest(
        "tests/engines/test_hub.py::test_a_partial_cache_does_not_hide_that_the_hub_fails[429]", 20,
        ("tests/engines/test_hub.py::test_a_partial_cache_does_not_hide_that_the_hub_fails[503]",),
    ),
)  # fmt: skip


# Seconds on two idle cores that the short tests of a file take together, where it is more than a few.
FILE_SECONDS = {
    "tests/test_faults.py": 225,
    "tests/test_pipeline.py": 150,
    "tests/test_training_faults.py": 60,
    "tests/engines/test_vllm.py": 75,
    "tests/prediction/test_job.py": 60,
    "tests/storage/test_stores.py": 55,
    "tests/hostile/test_sources.py": 35,
    "tests/captioning/test_job.py": 45,
    "tests/dataset/test_ingest.py": 40,
    "tests/evaluation/test_page.py": 40,
    "tests/hostile/test_images.py": 30,
    "tests/training/test_job.py": 40,
    "tests/dataset/test_damage.py": 35,
    "tests/storage/test_lease.py": 30,
    "tests/test_secrets.py": 30,
    "tests/captioning/test_answers.py": 25,
    "tests/captioning/test_scale.py": 25,
    "tests/cluster/test_cluster_yaml.py": 25,
    "tests/engines/test_hub.py": 25,
    "tests/engines/test_loading.py": 25,
    "tests/evaluation/test_evaluate.py": 25,
    "tests/miniature/test_training.py": 25,
    "tests/pipeline/test_load_policy.py": 25,
    "tests/pipeline/test_router.py": 25,
    "tests/captioning/test_ledger.py": 20,
    "tests/captioning/test_lengths.py": 20,
    "tests/engines/test_failures.py": 20,
    "tests/imaging/test_process.py": 20,
    "tests/test_cli.py": 20,
    "tests/training/test_parallel.py": 20,
    "tests/training/test_families.py": 15,
    "tests/training/test_learner.py": 15,
}


_PREFIXES = tuple(test.prefix for test in LONG_TESTS)


def is_long(nodeid: str) -> bool:
    """Whether a test is left to `make verify`."""
    return nodeid.startswith(_PREFIXES)


def file_seconds(path: str, *, verify: bool) -> float:
    """How long a file takes, roughly: of its short tests, or with `verify` of all."""
    long = sum(test.seconds for test in LONG_TESTS if test.prefix.startswith(path)) if verify else 0
    return FILE_SECONDS.get(path, 0) + long
