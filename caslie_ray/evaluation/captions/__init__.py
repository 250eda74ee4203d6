"""Captions and verdicts: counts per view, their bootstrap intervals and plots; against known truth where there is one.

The truth of a drawn data set is in `drawn_truth`, the only module that imports `caslie_ray.miniature`. It and the
modules that use it (`truth_counts`, `truth_summary`) are imported only when a run has such truth.
"""
