"""Progress lines: one live line in a terminal, or a line per minute in a log."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from typing import Self, TextIO

__all__ = ["Progress", "clock"]

_LOG_EVERY_S = 60.0
# The first line of a log comes sooner, to show that work has started.
_FIRST_S = 10.0
_BAR = 24


def clock(seconds: float) -> str:
    """Format a duration: ``42s``, ``3m05s``, ``2h10m``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class Progress:
    """Context manager that shows the done share of some work, its rate and the time left.

    Args:
        name: of the work.
        total: number of units; None if unknown.
        unit: name of the units, in the plural.
        stream: output; standard error by default.
        every_s: seconds between lines if the stream is not a terminal.
        quiet: no output.
    """

    def __init__(
        self,
        name: str,
        total: int | None,
        unit: str = "views",
        stream: TextIO | None = None,
        every_s: float = _LOG_EVERY_S,
        quiet: bool = False,
    ) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done = 0
        self.note = ""
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._live = self._stream.isatty()
        self._every_s = 0.2 if self._live else every_s
        self._begun = time.monotonic()
        self._shown = self._begun + min(0.0, _FIRST_S - self._every_s)
        self._lock = threading.Lock()

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        """Set the number of finished units; may print."""
        self.done = done
        self.total = total if total is not None else self.total
        self.tick(note)

    def tick(self, note: str = "") -> None:
        """Print the line if it is due. Thread-safe."""
        with self._lock:
            self.note = note or self.note
            now = time.monotonic()
            if now - self._shown >= self._every_s:
                self._shown = now
                self._show()

    def add(self, units: int, note: str = "") -> None:
        """Add finished units; may print."""
        self.update(self.done + units, note=note)

    def close(self) -> None:
        """Print the last line."""
        self._show()
        if self._live and not self._quiet:
            self._stream.write("\n")
            self._stream.flush()

    def line(self) -> str:
        """Return the current line."""
        spent = max(time.monotonic() - self._begun, 1e-9)
        rate = self.done / spent
        parts = [f"{self.done:,}" + (f"/{self.total:,}" if self.total is not None else "") + f" {self.unit}"]
        if self.total:
            share = min(1.0, self.done / self.total)
            parts.insert(0, "█" * round(share * _BAR) + "░" * (_BAR - round(share * _BAR)) + f" {share:4.0%}")
        parts.append(f"{rate:.1f}/s")
        if self.total and 0 < self.done < self.total:
            parts.append(f"{clock((self.total - self.done) / rate)} left")
        else:
            parts.append(clock(spent))
        return f"{self.name} {' · '.join(parts)}" + (f" · {self.note}" if self.note else "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _show(self) -> None:
        if self._quiet:
            return
        text = self.line()
        if self._live:
            # A wrapped line cannot be overwritten.
            text = "\r\x1b[2K" + text[: shutil.get_terminal_size().columns - 1]
        self._stream.write(text if self._live else f"{text}\n")
        self._stream.flush()
