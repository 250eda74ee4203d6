"""Watch for the notice that EC2 takes this spot machine back, and drain its Ray node before that.

Run as:
    python -m caslie_ray.cluster.preemption
    python -m caslie_ray.cluster.preemption --every 2 --address 10.0.0.5:6379

EC2 gives notice of two minutes, in the instance's metadata and nowhere that Ray looks. This process asks for it every
few seconds. When it is there, it tells Ray to drain the node: nothing new is placed on it, what runs goes on until the
machine goes, and its end counts as a preemption, which training sees ahead and which is charged to no actor's restarts.

It ends by itself: when the node is drained or gone, or when the machine turns out to be no spot machine. So it can be
started on every node; `cluster.yaml` does.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from typing import NamedTuple

import psutil

__all__ = ["Metadata", "MetadataError", "Notice", "RayNode", "drain", "find_ray_node", "main", "parse_notice"]

_LOG = logging.getLogger(__name__)

_METADATA_URL = "http://169.254.169.254"
_TOKEN_TTL_S = 21600
_ANSWER_S = 2.0  # seconds for an answer of the metadata service: it is on the machine's own link
_NOTICE_S = 120  # what EC2 promises where a notice does not say when
_FIND_NODE_S = 60.0
_DRAIN_S = 60.0
_COMMAND_S = 5  # what `ray drain-node` takes to start; it counts the seconds left from then

_EPILOG = """\
exit codes:
  0  the node is drained, or has gone, or this is no spot machine
  1  no Ray node was found on this machine, or several and none was named
  2  wrong arguments

Try it against a server of your own with --metadata-url. What it says goes to standard error. On a cluster that asks
for a token, give this process the same RAY_AUTH_MODE and token as the node.
"""


class MetadataError(RuntimeError):
    """The metadata service does not answer, or not with what can be read. It may do the next time."""


class Notice(NamedTuple):
    """That the machine is taken back: ``terminate``, ``stop`` or ``hibernate``, and when."""

    action: str
    at: datetime

    def seconds_left(self, now: datetime) -> int:
        """Return whole seconds until then, rounded down; 0 where it has passed."""
        return max(0, math.floor((self.at - now).total_seconds()))


class Metadata:
    """The instance metadata service, version 2: each question carries a token, which is asked for first."""

    def __init__(self, url: str = _METADATA_URL) -> None:
        self._url = url.rstrip("/")
        self._token: str | None = None
        # A proxy of the environment would be asked for an address that only this machine has.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def notice(self) -> Notice | None:
        """Return the notice, or None while there is none.

        Raises:
            MetadataError: nobody knows whether there is one.
        """
        told = self._get("spot/instance-action")
        return None if told is None else parse_notice(told, datetime.now(UTC))

    def rebalance(self) -> str | None:
        """Return what EC2 says of a raised risk, often before a notice, or None.

        Raises:
            MetadataError: nobody knows.
        """
        return self._get("events/recommendations/rebalance")

    def life_cycle(self) -> str | None:
        """Return how the machine is paid for, such as ``spot`` or ``on-demand``; None where it does not say.

        Raises:
            MetadataError: nobody knows.
        """
        return self._get("instance-life-cycle")

    def _get(self, path: str) -> str | None:
        try:
            return self._ask(path)
        except urllib.error.HTTPError as error:
            if error.code != 401:
                raise MetadataError(f"{path}: {error}") from error
        except (OSError, HTTPException, ValueError) as error:
            raise MetadataError(f"{path}: {error}") from error
        # The token has run out, or the service has been started anew and knows it no more.
        self._token = None
        try:
            return self._ask(path)
        except (OSError, HTTPException, ValueError) as error:
            raise MetadataError(f"{path}: {error}") from error

    def _ask(self, path: str) -> str | None:
        if self._token is None:
            self._token = self._read("PUT", "api/token", {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_TTL_S)})
        try:
            return self._read("GET", f"meta-data/{path}", {"X-aws-ec2-metadata-token": self._token})
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def _read(self, method: str, path: str, headers: dict[str, str]) -> str:
        request = urllib.request.Request(f"{self._url}/latest/{path}", method=method, headers=headers)
        with self._opener.open(request, timeout=_ANSWER_S) as answer:
            body: bytes = answer.read()
        return body.decode()


def parse_notice(text: str, now: datetime) -> Notice:
    """Read ``{"action": "terminate", "time": "2030-01-01T08:22:00Z"}``.

    A time that cannot be read is taken for two minutes from now: that the machine goes is what matters.

    Raises:
        MetadataError: it is no notice at all.
    """
    try:
        found = json.loads(text)
        action = found["action"]
    except (ValueError, TypeError, KeyError) as error:
        raise MetadataError(f"spot/instance-action: not a notice: {text[:200]!r}") from error
    at = now + timedelta(seconds=_NOTICE_S)
    with suppress(ValueError, TypeError, KeyError):
        said = datetime.fromisoformat(found["time"])
        at = said if said.tzinfo else said.replace(tzinfo=UTC)
    return Notice(str(action), at)


class RayNode(NamedTuple):
    """A Ray node of this machine: its id, the cluster's address, and the process that is the node."""

    node_id: str
    address: str
    process: psutil.Process

    def alive(self) -> bool:
        """Whether the node still runs; a process that waits to be reaped does not."""
        try:
            return self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def find_ray_node(address: str | None = None, node_id: str | None = None) -> RayNode | None:
    """Find the Ray node of this machine in the table of processes; None where there is none.

    `ray drain-node` without an id is not what is wanted: it joins the cluster as a driver to ask where it is, and where
    two nodes share a machine it takes the head.

    Args:
        address: the cluster, ``host:port``; any where None.
        node_id: the node; any where None.

    Raises:
        LookupError: there are several; the message names them.
    """
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            if not words or words[0].rpartition("/")[2] != "raylet":
                continue
            flags = dict(word.split("=", 1) for word in words[1:] if word.startswith("--") and "=" in word)
            node = RayNode(flags.get("--node_id", ""), flags.get("--gcs-address", ""), process)
            if node.alive() and address in (None, node.address) and node_id in (None, node.node_id):
                found.append(node)
    if len(found) > 1:
        names = ", ".join(f"{node.node_id} of {node.address}" for node in found)
        raise LookupError(f"several Ray nodes on this machine, name one with --node-id: {names}")
    return found[0] if found else None


def drain(node: RayNode, notice: Notice) -> bool:
    """Tell Ray that the node is preempted, and when; return whether Ray took it."""
    left = notice.seconds_left(datetime.now(UTC))
    command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node"]
    command += ["--address", node.address, "--node-id", node.node_id]
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    command += ["--reason-message", f"EC2 spot: {notice.action} at {notice.at.isoformat()}"]
    command += ["--deadline-remaining-seconds", str(max(0, left - _COMMAND_S))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DRAIN_S, check=False)
    except subprocess.TimeoutExpired:
        _LOG.error("Ray did not answer for %.0f s when it was told to drain node %s", _DRAIN_S, node.node_id)
        return False
    if done.returncode:
        _LOG.error("node %s could not be drained: %s", node.node_id, done.stderr.strip()[-2000:])
        return False
    _LOG.warning("EC2 will %s this machine in %d s; node %s is being drained", notice.action, left, node.node_id)
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Watch until the node is drained or gone; return the exit code.

    Args:
        argv: the arguments; those of the process where None.
    """
    options = _parser().parse_args(argv)
    logging.basicConfig(format="%(asctime)s %(levelname).1s preemption: %(message)s", level=logging.INFO)
    try:
        node = _wait_for_ray_node(options.address, options.node_id)
    except LookupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if node is None:
        print("error: no Ray node runs on this machine; `ray start` comes first", file=sys.stderr)
        return 1
    _LOG.info("watching over node %s, asking %s every %g s", node.node_id, options.metadata_url, options.every)
    _watch(node, Metadata(options.metadata_url), options.every)
    return 0


def _watch(node: RayNode, metadata: Metadata, every: float) -> None:
    spot = answers = True
    known_to_be_spot = warned = False
    while node.alive():
        try:
            if not known_to_be_spot:
                spot = metadata.life_cycle() in (None, "spot")
                known_to_be_spot = spot
            if not spot:
                _LOG.info("this is no spot machine, nobody takes it back")
                return
            notice = metadata.notice()
            if notice is not None and drain(node, notice):
                return
            if not warned and (risk := metadata.rebalance()):
                _LOG.warning("EC2 sees a raised risk that this machine is taken back: %s", risk)
                warned = True
            if not answers:
                _LOG.info("the metadata service answers again")
            answers = True
        except MetadataError as error:
            # Told once: hours of it would hide what matters in the log.
            if answers:
                _LOG.warning("the metadata service does not answer, asking on: %s", error)
            answers = False
        time.sleep(every)
    _LOG.info("node %s has gone", node.node_id)


def _wait_for_ray_node(address: str | None, node_id: str | None) -> RayNode | None:
    give_up = time.monotonic() + _FIND_NODE_S
    while (node := find_ray_node(address, node_id)) is None and time.monotonic() < give_up:
        time.sleep(1.0)
    return node


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < _NOTICE_S:
        raise argparse.ArgumentTypeError(f"more than 0 and less than {_NOTICE_S}, which is all the notice there is")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m caslie_ray.cluster.preemption",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--every", type=_seconds, default=5.0, metavar="SECONDS",
        help="how often to ask (default 5, what EC2 advises); what it takes is lost of two minutes",
    )  # fmt: skip
    parser.add_argument(
        "--address", metavar="HOST:PORT",
        help="the cluster whose node on this machine is meant (default: that of the one node that runs here)",
    )  # fmt: skip
    parser.add_argument(
        "--node-id", metavar="HEX", help="the node that is meant, where several of one cluster share a machine"
    )
    parser.add_argument(
        "--metadata-url", default=_METADATA_URL, metavar="URL", help=f"the metadata service (default {_METADATA_URL})"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
