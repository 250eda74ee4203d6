"""Measure captions, votes, verdicts and answers, and write the tables and the page that show them.

`python jobs/evaluate.py --help` explains the job; `caslie evaluate` is the same where the package is installed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caslie_ray.commands import run_command

if __name__ == "__main__":
    sys.exit(run_command("evaluate"))
