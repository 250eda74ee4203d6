"""Caption each product image for its context, and let the voters decide which captions help (EC³ and CQE).

`python jobs/caption.py --help` explains the job; `caslie caption` is the same where the package is installed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caslie_ray.commands import run_command

if __name__ == "__main__":
    sys.exit(run_command("caption"))
