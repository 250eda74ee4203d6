"""Verdicts by true answer: how well they alone, without captions or text, predict the answer."""

from caslie_ray.verdict_bits._counts import OTHER_BITS, BitCounts, VerdictBits
from caslie_ray.verdict_bits._prediction import mutual_information, predictions_of_bits

__all__ = ["OTHER_BITS", "BitCounts", "VerdictBits", "mutual_information", "predictions_of_bits"]
