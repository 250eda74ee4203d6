"""Let the fine-tuned models answer the instructions of the test splits.

`python jobs/predict.py --help` explains the job; `caslie predict` is the same where the package is installed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caslie_ray.commands import run_command

if __name__ == "__main__":
    sys.exit(run_command("predict"))
