"""Measure captions, votes and verdicts, and write the page that shows them.

Run as:
    python jobs/evaluate.py --profile mini --run runs/demo
    python jobs/evaluate.py --profile mini --run runs/demo --plan
    python jobs/evaluate.py --profile measure --run runs/measure --set evaluation.context_free=false

Reads samples, images, views and captions; writes report/index.html, to be opened in a browser, and
summary/evaluate.json. Where the truth is known, as of the drawn catalogue, captions and verdicts are held against it;
of any other run the agreement of the voters is measured.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caslie_ray.cli import main
from caslie_ray.jobs import evaluate_job

if __name__ == "__main__":
    sys.exit(main(__doc__ or "", evaluate_job))
