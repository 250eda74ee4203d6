"""Let the fine-tuned models answer the instructions of the test splits.

Run as:
    python jobs/predict.py --profile mini --run runs/demo
    python jobs/predict.py --profile mini --run runs/demo --set prediction.splits=[validation] \
        --set prediction.base=true
    python jobs/predict.py --profile mini --run runs/demo --plan

Reads instructions and models; writes predictions and summary/predict.json. All adapters answer in one pass, on one
copy of the base. What is answered already is not asked again.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caslie_ray.cli import main
from caslie_ray.jobs import predict_job

if __name__ == "__main__":
    sys.exit(main(__doc__ or "", predict_job))
