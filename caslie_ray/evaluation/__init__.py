"""Evaluation: captions and verdicts (`captions`), answers of models (`answers`), and the page on both (`report`).

`report` imports neither of the others, and these do not import each other.
"""

from caslie_ray.evaluation._evaluate import evaluate, plan_evaluation

__all__ = ["evaluate", "plan_evaluation"]
