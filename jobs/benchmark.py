"""Measure the jobs beside what one would use instead, on the same views and checkpoints, and print the ratios.

Run as:
    python jobs/benchmark.py --profile mini --quick
    python jobs/benchmark.py --profile mini --json benchmark.json --plot benchmark.svg
    python jobs/benchmark.py --profile smol --views 200
    python jobs/benchmark.py --profile mini --only captioning voting \\
        --set lineup.captioner.engine=vllm lineup.voters.phi.engine=vllm
    python jobs/benchmark.py --profile caslie-s --run s3://shop/run

Captioning, voting, the chain of both, prediction and training, each beside: the published loop (one request at a time,
16 generated tokens per vote), the bare engine (the same requests without Ray, one process per core or GPU),
ray.data.llm where the models run on vLLM, and for training a plain PyTorch loop. The sides take turns, in another order
each round. Ratios are of the steady state; start-up is listed apart. Votes read from the published loop's texts are
compared with the engines' where both sides wrote the same caption; those on other captions are counted as unmatched.

Without --run, or on a run without views, the miniature world is drawn. A run's own tables are only read.
Not measured: ingest, downloads, and adapters in prediction, where the base answers alone.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caslie_ray.benchmark.options import add_options
from caslie_ray.cli import main
from caslie_ray.jobs import benchmark_job

if __name__ == "__main__":
    sys.exit(main(__doc__ or "", benchmark_job, run_required=False, add_options=add_options))
