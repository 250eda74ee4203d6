"""A small synthetic world with ground truth: a drawn catalogue in the released format, and miniature checkpoints."""

from caslie_ray.miniature._dataset import WorldSize, write_dataset

__all__ = ["WorldSize", "write_dataset"]
