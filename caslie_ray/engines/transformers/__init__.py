"""Any checkpoint that transformers can load, on the CPU, on one GPU, or split over several."""

from caslie_ray.engines.transformers._engine import TransformersEngine, load

__all__ = ["TransformersEngine", "load"]
