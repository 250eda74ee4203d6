"""Drain this machine's Ray node when EC2 announces a spot interruption.

Run as:
    python -m caslie_ray.cluster.preemption
    python -m caslie_ray.cluster.preemption --every 2 --address 10.0.0.5:6379

EC2 gives two minutes' notice in the instance metadata, which Ray does not read. This process polls it every few
seconds. On a notice it asks Ray to drain the node: Ray schedules nothing new on it, running work continues until the
machine is taken, and the loss counts as a preemption, which training can prepare for and which uses up no restarts of
actors.

It ends by itself when the node is drained or gone, or when the machine is not a spot instance. So it can be started on
every node, as `cluster.yaml` does.
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
_ANSWER_S = 2.0  # the metadata service is link-local
_NOTICE_S = 120  # EC2's documented notice, for a notice without a time
_FIND_NODE_S = 60.0
_DRAIN_S = 60.0
_COMMAND_S = 5  # start-up of `ray drain-node`, which counts the remaining seconds from then

_EPILOG = """\
exit codes:
  0  the node is drained or gone, or this is not a spot instance
  1  no Ray node was found on this machine, or several and none was named
  2  wrong arguments

To test it, run your own metadata server and set --metadata-url. It logs to standard error. On a cluster with token
authentication, give this process the same RAY_AUTH_MODE and token as the node.
"""


class MetadataError(RuntimeError):
    """The metadata service does not answer, or sends something unreadable; the next request may succeed."""


class Notice(NamedTuple):
    """An interruption notice: ``terminate``, ``stop`` or ``hibernate``, and when."""

    action: str
    at: datetime

    def seconds_left(self, now: datetime) -> int:
        """Return the whole seconds until then, rounded down; 0 if it has passed."""
        return max(0, math.floor((self.at - now).total_seconds()))


class Metadata:
    """Client of the instance metadata service, version 2 (with session tokens)."""

    def __init__(self, url: str = _METADATA_URL) -> None:
        self._url = url.rstrip("/")
        self._token: str | None = None
        # No proxy: the address is link-local.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def notice(self) -> Notice | None:
        """Return the interruption notice, or None while there is none.

        Raises:
            MetadataError: the service does not answer.
        """
        text = self._get("spot/instance-action")
        return None if text is None else parse_notice(text, datetime.now(UTC))

    def rebalance(self) -> str | None:
        """Return EC2's rebalance recommendation, which often precedes a notice, or None.

        Raises:
            MetadataError: the service does not answer.
        """
        return self._get("events/recommendations/rebalance")

    def life_cycle(self) -> str | None:
        """Return the purchasing option, such as ``spot`` or ``on-demand``; None if the service does not have it.

        Raises:
            MetadataError: the service does not answer.
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
        # The token has expired, or the service has restarted and forgotten it.
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
    """Parse ``{"action": "terminate", "time": "2030-01-01T08:22:00Z"}``.

    If the time cannot be parsed, it is two minutes from now: the interruption itself matters more.

    Raises:
        MetadataError: it is not a notice.
    """
    try:
        found = json.loads(text)
        action = found["action"]
    except (ValueError, TypeError, KeyError) as error:
        raise MetadataError(f"spot/instance-action: not a notice: {text[:200]!r}") from error
    at = now + timedelta(seconds=_NOTICE_S)
    with suppress(ValueError, TypeError, KeyError):
        parsed = datetime.fromisoformat(found["time"])
        at = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return Notice(str(action), at)


class RayNode(NamedTuple):
    """A Ray node on this machine: its id, the cluster's address, and the raylet process."""

    node_id: str
    address: str
    process: psutil.Process

    def alive(self) -> bool:
        """Return whether the raylet runs; a zombie does not."""
        try:
            return self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def find_ray_node(address: str | None = None, node_id: str | None = None) -> RayNode | None:
    """Find the Ray node of this machine in the process table; None if there is none.

    `ray drain-node` without an id would join the cluster as a driver to find its node, and would take the head if two
    nodes share a machine.

    Args:
        address: the cluster, ``host:port``; None: any.
        node_id: the node; None: any.

    Raises:
        LookupError: there are several; the message lists them.
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
    """Drain the node with the notice's deadline; return whether Ray accepted."""
    left = notice.seconds_left(datetime.now(UTC))
    command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node"]
    command += ["--address", node.address, "--node-id", node.node_id]
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    command += ["--reason-message", f"EC2 spot: {notice.action} at {notice.at.isoformat()}"]
    command += ["--deadline-remaining-seconds", str(max(0, left - _COMMAND_S))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DRAIN_S, check=False)
    except subprocess.TimeoutExpired:
        _LOG.error("Ray did not answer within %.0f s when asked to drain node %s", _DRAIN_S, node.node_id)
        return False
    if done.returncode:
        _LOG.error("node %s could not be drained: %s", node.node_id, done.stderr.strip()[-2000:])
        return False
    _LOG.warning("EC2 will %s this machine in %d s; node %s is being drained", notice.action, left, node.node_id)
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Poll until the node is drained or gone; return the exit code.

    Args:
        argv: the arguments; None: those of the process.
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
    _LOG.info("watching node %s, polling %s every %g s", node.node_id, options.metadata_url, options.every)
    _poll(node, Metadata(options.metadata_url), options.every)
    return 0


def _poll(node: RayNode, metadata: Metadata, every: float) -> None:
    spot = answers = True
    known_to_be_spot = warned = False
    while node.alive():
        try:
            if not known_to_be_spot:
                spot = metadata.life_cycle() in (None, "spot")
                known_to_be_spot = spot
            if not spot:
                _LOG.info("this is not a spot instance: nothing to watch")
                return
            notice = metadata.notice()
            if notice is not None and drain(node, notice):
                return
            if not warned and (risk := metadata.rebalance()):
                _LOG.warning("EC2 reports a higher risk of interruption of this machine: %s", risk)
                warned = True
            if not answers:
                _LOG.info("the metadata service answers again")
            answers = True
        except MetadataError as error:
            # Logged once, not for hours.
            if answers:
                _LOG.warning("the metadata service does not answer, retrying: %s", error)
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
        raise argparse.ArgumentTypeError(f"more than 0 and less than {_NOTICE_S}, the length of the notice")
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
        help="polling interval (default 5, as EC2 recommends); it shortens the two minutes of notice",
    )  # fmt: skip
    parser.add_argument(
        "--address", metavar="HOST:PORT",
        help="address of the cluster (default: that of the only node on this machine)",
    )  # fmt: skip
    parser.add_argument(
        "--node-id", metavar="HEX", help="id of the node, if several nodes of one cluster share a machine"
    )
    parser.add_argument(
        "--metadata-url",
        default=_METADATA_URL,
        metavar="URL",
        help=f"URL of the metadata service (default {_METADATA_URL})",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
