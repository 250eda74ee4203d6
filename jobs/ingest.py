"""Read a data set in the MMECInstruct format: samples, their images, and the views to caption.

Run as:
    python jobs/ingest.py --run runs/demo                                 (draws the miniature world)
    python jobs/ingest.py --run runs/shop --source path/to/dataset.json
    python jobs/ingest.py --profile caslie-m --run s3://shop/run --source s3://shop/products/

Writes the tables samples, images, views and rejects, and summary/ingest.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caslie_ray.cli import main
from caslie_ray.jobs import ingest_job

if __name__ == "__main__":
    sys.exit(main(__doc__ or "", ingest_job, source=True))
