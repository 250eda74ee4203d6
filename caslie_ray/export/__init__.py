"""Captions by the shop's own product ids, in the formats that shops, spreadsheets and data sets use.

A join of `products` with `captions` on the view id, in tasks that exchange rows through files: the driver holds counts
and names of files. See `caslie_ray.export._export` for its steps. Nothing is imported here, so that `--help` answers
at once.
"""
