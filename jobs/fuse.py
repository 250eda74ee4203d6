"""Write the instructions that uniM³ is trained on: text plus the captions that won, and two ablations.

`python jobs/fuse.py --help` explains the job; `caslie fuse` is the same where the package is installed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caslie_ray.commands import run_command

if __name__ == "__main__":
    sys.exit(run_command("fuse"))
