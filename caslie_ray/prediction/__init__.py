"""The base, alone or with a trained adapter, answers the instructions of a split (paper 4.3 and 6)."""

from caslie_ray.prediction._answerers import Answerer, answerers_of
from caslie_ray.prediction._job import PredictResult, plan_prediction, predict

__all__ = ["Answerer", "PredictResult", "answerers_of", "plan_prediction", "predict"]
