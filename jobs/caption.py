"""Caption every product image for its context and let the voters decide which captions help (EC³ and CQE).

Run as:
    python jobs/caption.py --profile mini --run runs/demo
    python jobs/caption.py --profile mini --run runs/demo --plan
    python jobs/caption.py --run runs/demo --status
    python jobs/caption.py --profile caslie-m --run s3://shop/run --set votes.schedule=full

Reads the tables images and views, writes captions and summary/caption.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caslie_ray.cli import main
from caslie_ray.jobs import caption_job

if __name__ == "__main__":
    sys.exit(main(__doc__ or "", caption_job, status=True))
