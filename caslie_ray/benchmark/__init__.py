"""The benchmark: this project beside the published loop, bare engines, `ray.data.llm` and a plain training loop.

`running.benchmark` measures. Nothing is imported here, since its processes start with this package.
"""
