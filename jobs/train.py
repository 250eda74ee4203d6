"""Fine-tune uniM³ with LoRA on the instructions of the split train, over the workers that the cluster has.

Run as:
    python jobs/train.py --profile mini --run runs/demo
    python jobs/train.py --profile mini --run runs/demo --set training.variants=[caslie,uia,text]
    python jobs/train.py --profile mini --run runs/demo --plan

Reads instructions; writes models/NAME-KEY/ (the adapters best and last, curves, training.json) and summary/train.json.
A model that is finished is left alone; one that was begun goes on from its last checkpoint, which is kept in
models/checkpoints-KEY/ until all are finished.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caslie_ray.cli import main
from caslie_ray.jobs import train_job

if __name__ == "__main__":
    sys.exit(main(__doc__ or "", train_job))
