"""Fetching and decoding a block of image references."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from caslie_ray.dataset._decoding import ImageError, StoredImage, decode
from caslie_ray.dataset._downloading import NO_VALIDATORS, Download, Downloader, GoneError, NotModified, Validators
from caslie_ray.dataset._files import Files
from caslie_ray.dataset._headers import RequestHeaders
from caslie_ray.profiles import ImageSettings
from caslie_ray.storage.redaction import brief

__all__ = ["Outcome", "read_images", "task_memory", "try_decode"]

# The worker process with its imports, and the images of a block before they are written.
_WORKER_BYTES = 512 << 20

_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a reference.

    Attributes:
        image: the stored image; None if there is none.
        reason: why there is none; None if there is one.
        retryable: whether a later run may succeed.
        gone: whether the server answered that there is no image, or not any more.
        not_modified: whether the server still has the version that was named to it; there is no image and no reason.
        validators: what the server calls the version by that gave the image or the reason.
    """

    image: StoredImage | None
    reason: str | None = None
    retryable: bool = False
    gone: bool = False
    not_modified: bool = False
    validators: Validators = NO_VALIDATORS


def task_memory(limits: ImageSettings, files: int) -> int:
    """Return the memory, in bytes, of a task that decodes images and has a number of undecoded files in memory."""
    return _WORKER_BYTES + limits.max_memory + files * limits.max_bytes


def try_decode(data: bytes, limits: ImageSettings) -> Outcome:
    """Decode bytes; return an ImageError as an outcome."""
    try:
        return Outcome(decode(data, limits))
    except ImageError as error:
        return Outcome(None, error.reason, error.retryable)


def read_images(
    locators: Sequence[str],
    limits: ImageSettings,
    headers: RequestHeaders,
    files: Files | None = None,
    known: Mapping[str, Validators] = {},
) -> list[Outcome]:
    """Fetch and decode each locator (``url:``, ``file:`` or ``store:``), in order, without raising. Without
    `files` no path and no object is read. What has the version in `known`, by locator, is not downloaded.

    A failed download from a host that is sent credentials is retryable: credentials are not stored, and the next run
    may have others.

    Decoding, one image at a time in this worker's decoder process, overlaps with downloads.
    """
    return asyncio.run(_read_all(locators, limits, headers, files or Files(()), known))


async def _read_all(
    locators: Sequence[str],
    limits: ImageSettings,
    headers: RequestHeaders,
    files: Files,
    known: Mapping[str, Validators],
) -> list[Outcome]:
    loop = asyncio.get_running_loop()
    # Bounds the bodies in memory, not only the downloads.
    slots = asyncio.Semaphore(limits.concurrency)
    with ThreadPoolExecutor(max_workers=1) as decoder:
        async with Downloader(limits, headers) as downloader:

            async def fetch(locator: str) -> Outcome:
                try:
                    if locator.startswith("url:"):
                        version = known.get(locator, NO_VALIDATORS)
                        found = await downloader.download(locator.removeprefix("url:"), version)
                    else:
                        found = Download(await asyncio.to_thread(files.read, locator, limits.max_bytes))
                except NotModified:
                    return Outcome(None, not_modified=True)
                except ImageError as error:
                    return Outcome(None, error.reason, error.retryable, gone=isinstance(error, GoneError))
                except Exception as error:  # no reference may end the job, whatever a library raises
                    reason = f"unreadable reference: {brief(error)[:_SHOWN]}; give another one"
                    return Outcome(None, reason)
                outcome = await loop.run_in_executor(decoder, try_decode, found.body, limits)
                return replace(outcome, validators=found.validators)

            async def one(locator: str) -> Outcome:
                async with slots:
                    outcome = await fetch(locator)
                credentials = locator.startswith("url:") and headers.are_for(locator.removeprefix("url:"))
                return replace(outcome, retryable=True) if outcome.reason is not None and credentials else outcome

            return list(await asyncio.gather(*(one(locator) for locator in locators)))
