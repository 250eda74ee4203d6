"""Write the instructions that uniM³ is trained on: text plus the captions that won, and two ablations.

Run as:
    python jobs/fuse.py --run runs/demo

Reads samples and captions, writes instructions (variants caslie, uia and text) and summary/fuse.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caslie_ray.cli import main
from caslie_ray.jobs import fuse_job

if __name__ == "__main__":
    sys.exit(main(__doc__ or "", fuse_job))
