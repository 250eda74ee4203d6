"""Answers, metrics and the report that a person looks at."""

from caslie_ray.evaluation._evaluate import evaluate, plan_evaluation

__all__ = ["evaluate", "plan_evaluation"]
