"""The class of a chain's stage; see test_replica.py for what it does."""

from __future__ import annotations

from caslie_ray.pipeline.stage import stage_class


def test_the_class_has_the_model_s_name_for_ray_s_dashboard() -> None:
    assert stage_class("llama-3.2").__name__ == "ModelStage_llama_3_2"
