"""Measure the jobs against what one would use instead, on the same views and checkpoints, and print the ratios.

`python jobs/benchmark.py --help` explains the job; `caslie benchmark` is the same where the package is installed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caslie_ray.commands import run_command

if __name__ == "__main__":
    sys.exit(run_command("benchmark"))
