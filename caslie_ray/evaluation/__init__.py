"""Answers, metrics and the report that a person looks at."""

from caslie_ray.evaluation._answers import describe_left_out
from caslie_ray.evaluation._evaluate import evaluate, plan_evaluation
from caslie_ray.evaluation._figures import names_of_sets
from caslie_ray.evaluation._verdict_bits import predictions_of_bits

__all__ = ["describe_left_out", "evaluate", "names_of_sets", "plan_evaluation", "predictions_of_bits"]
