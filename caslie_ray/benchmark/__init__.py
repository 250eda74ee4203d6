"""The benchmark: this project against the published loop, bare engines, `ray.data.llm` and a plain training loop.

Entry point: `running.benchmark`. Nothing is imported here, since subprocesses import this package.
"""
