"""Owns an engine process until it is killed; run by test_end_of_owner.py."""

from __future__ import annotations

import signal
import sys
import threading
import time

from caslie_ray.engines import EngineSpec, Request
from caslie_ray.engines.process import EngineProcess, ProcessLimits
from caslie_ray.prompts import Prompt
from tests.engines.process import fakes

__all__ = ["main"]


def main(command: str) -> None:
    """Start an engine that has started others, and say who it is."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    process = EngineProcess(EngineSpec("phi-4", fakes.ENGINE, batch_size=4), ProcessLimits(call_timeout_s=5.0))
    process.generate([Request("0", Prompt("orphans"))])
    if command == "hang":
        threading.Thread(target=process.generate, args=([Request("0", Prompt("hang"))],), daemon=True).start()
    print(process.pid, flush=True)
    if command == "exit":
        sys.exit(0)
    time.sleep(3600)


if __name__ == "__main__":
    main(sys.argv[1])
