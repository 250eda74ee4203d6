"""Read a data set in the MMECInstruct format: samples, their images, and the views to caption.

`python jobs/ingest.py --help` explains the job; `caslie ingest` is the same where the package is installed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caslie_ray.commands import run_command

if __name__ == "__main__":
    sys.exit(run_command("ingest"))
