"""Serve the models over HTTP: captions, votes, answers, an OpenAI-compatible API, and a page to try them.

`python jobs/serve.py --help` explains the job; `caslie serve` is the same where the package is installed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caslie_ray.commands import run_command

if __name__ == "__main__":
    sys.exit(run_command("serve"))
