"""Load on a server: a number of clients that ask one after the other, and what they got."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

__all__ = ["Load", "run_load"]


@dataclass
class Load:
    """What clients got: responses by status, the seconds of those with 200, and their answers."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def percentiles(self) -> dict[str, float]:
        """The 50th, 95th and 99th percentile, in seconds."""
        cuts = statistics.quantiles(self.seconds, n=100)
        return {f"p{at}": round(cuts[at - 1], 3) for at in (50, 95, 99)}


def run_load(
    url: str,
    question: Callable[[int], dict[str, Any]],
    clients: int,
    seconds: float,
    until: Callable[[], bool] = lambda: True,
) -> Load:
    """Ask for some seconds with a number of clients; each asks again as soon as it has its answer.

    Args:
        url: of the server.
        question: returns the question with a number.
        clients: concurrent clients.
        seconds: for how long.
        until: what must be true as well before they end.
    """
    load, lock, numbers = Load(), threading.Lock(), iter(range(10**9))
    end = time.monotonic() + seconds

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=120.0) as client:
            while time.monotonic() < end or not until():
                with lock:
                    number = next(numbers)
                started = time.monotonic()
                try:
                    response = client.post("/v1/predict", json=question(number))
                except httpx.TransportError as error:
                    with lock:
                        load.statuses[0] += 1
                        load.problems.append(repr(error))
                    continue
                took = time.monotonic() - started
                with lock:
                    load.statuses[response.status_code] += 1
                    if response.status_code == 200:
                        load.seconds.append(took)
                        load.answers.append({"number": number, **response.json()})
                    else:
                        load.problems.append(response.text[:300])

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return load
