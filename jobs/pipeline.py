"""All jobs in order on one run: ingest, caption, fuse, train, predict, evaluate.

Run as:
    python jobs/pipeline.py --profile mini --run runs/demo
    python jobs/pipeline.py --profile mini --run runs/shop --source path/to/dataset.json
    python jobs/pipeline.py --profile mini --run runs/demo --plan

Each job does only what the run lacks, so the command may be repeated at any time.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caslie_ray.cli import main
from caslie_ray.jobs import pipeline_job

if __name__ == "__main__":
    sys.exit(main(__doc__ or "", pipeline_job, source=True))
