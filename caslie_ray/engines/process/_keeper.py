"""The keeper: a small process between an engine process and its owner, which ends every descendant of the engine.

It starts the engine process and waits until that ends, or until the owner does, however it ends. Then it kills
whatever the engine has started, sessions of their own included: as a subreaper it adopts every orphan. It detaches
from the owner, since Ray kills the children of an actor that it ends. If the keeper itself is killed, the kernel kills
the engine process (PR_SET_PDEATHSIG).

Run as a script, without the package and without site-packages, so that it starts in milliseconds:
_keeper.py OWNER_PID LIFELINE_FD OOM_SCORE_ADJ COMMAND…
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from contextlib import suppress

_GRACE_S = 1.0
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def prctl(option: int, value: int) -> None:
    """Set a property of this process; does nothing if there is no such call (macOS)."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def start(command: list[str], lifeline: int, oom_score_adj: str) -> int:
    """Start the engine process in a session of its own; return its process id."""
    keeper = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        os.close(lifeline)
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:  # it ended before prctl took effect
            os._exit(1)
        with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write(oom_score_adj)
        for ignored in _IGNORED:
            signal.signal(ignored, signal.SIG_DFL)
        os.execv(command[0], command)
    finally:
        os._exit(127)


def descendants() -> list[int]:
    """Return the process ids of all descendants of this process; zombies left out."""
    parents: dict[int, int] = {}
    try:
        names = os.listdir("/proc")
    except OSError:
        return []
    for name in names:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
            except (OSError, ValueError):
                continue
            if state not in (b"Z", b"X"):
                parents[int(name)] = int(parent)
    found, me = [], os.getpid()
    for pid in parents:
        link = pid
        while link in parents and link != me:
            link = parents[link]
        if link == me and pid != me:
            found.append(pid)
    return found


def reap() -> dict[int, int]:
    """Reap children that have ended; return their wait statuses."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if not pid:
            return ended
        ended[pid] = status


def kill(pids: list[int]) -> None:
    """Kill processes; some may have ended."""
    for pid in pids:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def main() -> None:
    """Start the engine process, wait, and end all that is left."""
    owner, lifeline, oom_score_adj, *command = sys.argv[1:]
    wakeups, wakeup = os.pipe()
    watched = [int(lifeline), wakeups]
    with suppress(AttributeError, OSError):
        watched.append(os.pidfd_open(int(owner)))
    if os.getppid() != int(owner):
        return
    if os.fork():
        os._exit(0)
    os.setsid()
    for ignored in _IGNORED:
        signal.signal(ignored, signal.SIG_IGN)
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    engine = start(command, int(lifeline), oom_score_adj)
    # Standard input is the engine's socket, standard error its log: the owner must see their end when the engine ends.
    for number in (0, 1, 2):
        os.close(number)
    tell(int(lifeline), f"pid {engine}\n")
    poll = select.poll()
    for number in watched:
        poll.register(number, select.POLLIN)
    status = None
    while status is None:
        ready = {number for number, _ in poll.poll()}
        if wakeups in ready:
            os.read(wakeups, 4096)
        status = reap().get(engine)
        if ready - {wakeups}:  # the owner has closed the lifeline, or ended
            break
    if status is None:
        kill([engine])
        while status is None:
            status = reap().get(engine)
            time.sleep(0.005)
    # Helpers that clean up once the engine has ended get a moment to do so.
    deadline = time.monotonic() + _GRACE_S
    while left := descendants():
        if time.monotonic() > deadline:
            kill(left)
        time.sleep(0.01)
        reap()
    tell(int(lifeline), f"exit {os.waitstatus_to_exitcode(status)}\n")


def tell(lifeline: int, line: str) -> None:
    """Write a line to the owner, which may have ended."""
    with suppress(OSError):
        os.write(lifeline, line.encode())


if __name__ == "__main__":
    main()
