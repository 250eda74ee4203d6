"""The models over HTTP, on Ray Serve: captioner, voters and uniM³ behind one gateway.

`caslie_ray.serving.application:build` is the application of a Serve config; `caslie serve` runs it on this cluster.
"""
