"""Fine-tune uniM³ with LoRA on the instructions of the split train, on the workers that the cluster has.

`python jobs/train.py --help` explains the job; `caslie train` is the same where the package is installed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caslie_ray.commands import run_command

if __name__ == "__main__":
    sys.exit(run_command("train"))
