"""Run all jobs in order: ingest, caption, fuse, train, predict, evaluate.

`python jobs/pipeline.py --help` explains the job; `caslie pipeline` is the same where the package is installed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caslie_ray.commands import run_command

if __name__ == "__main__":
    sys.exit(run_command("pipeline"))
