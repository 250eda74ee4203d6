"""Measure captions, votes, verdicts and answers, and write the tables and the page that show them.

Run as:
    python jobs/evaluate.py --profile mini --run runs/demo
    python jobs/evaluate.py --profile mini --run runs/demo --plan
    python jobs/evaluate.py --profile measure --run runs/measure --set evaluation.context_free=false

Reads samples, images, views, captions and, where there are any, predictions. Writes report/index.html, to be opened in
a browser, report/metrics.json, report/tables.md and .tex (the paper's Tables 4 to 6, A3, A4, A7 to A13), and
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
