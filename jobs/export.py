"""Write the captions by the shop's own product ids: CSV, JSON Lines, Parquet, a data set, or a shop's feed.

`python jobs/export.py --help` explains the job; `caslie export` is the same where the package is installed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caslie_ray.commands import run_command

if __name__ == "__main__":
    sys.exit(run_command("export"))
