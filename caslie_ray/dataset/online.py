"""Single images for a server, under the limits of `ingest`: bytes, base64 text, or a public URL."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from caslie_ray.dataset._base64_images import decode_base64
from caslie_ray.dataset._decoding import ImageError, StoredImage, decode
from caslie_ray.dataset._downloading import Downloader
from caslie_ray.dataset._headers import request_headers
from caslie_ray.dataset._urls import clean_url
from caslie_ray.profiles import ImageSettings

__all__ = ["ImageError", "ImageReader", "StoredImage"]


class ImageReader:
    """Reads images as `ingest` stores them, so that they have the same ids; an async context manager.

    Files of this machine cannot be named. Images are decoded one at a time, in a decoder process of limited memory and
    time.

    Args:
        settings: limits, and request headers.
        environment: variables that headers may name.

    Raises:
        ProfileError: a header names a variable that is not set.
    """

    def __init__(self, settings: ImageSettings, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._headers = request_headers(settings, environment)
        self._decoding = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode")

    async def __aenter__(self) -> Self:
        self._downloader = await Downloader(self._settings, self._headers).__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._downloader.__aexit__(kind, error, trace)
        self._decoding.shutdown(wait=False, cancel_futures=True)

    async def from_bytes(self, data: bytes) -> StoredImage:
        """Return the stored image of an image file.

        Raises:
            ImageError: the file is damaged, no image, or over a limit.
        """
        return await asyncio.get_running_loop().run_in_executor(self._decoding, decode, data, self._settings)

    async def from_base64(self, text: str) -> StoredImage:
        """Return the stored image that base64 text or a ``data:`` URL contains.

        Raises:
            ImageError: the text is no base64, or the image cannot be used.
        """
        head, comma, body = text.partition(",")
        if head.startswith("data:"):
            if not comma or not head.endswith(";base64"):
                raise ImageError("invalid data URL: give data:image/…;base64,…")
            text = body
        try:
            data = decode_base64(text)
        except ValueError as error:
            raise ImageError(f"invalid base64: {error}") from None
        return await self.from_bytes(data)

    async def from_url(self, url: str) -> StoredImage:
        """Download an image.

        Raises:
            ImageError: the URL is refused, cannot be downloaded, or gives no image; see `Downloader`.
        """
        try:
            cleaned = clean_url(url)
        except ValueError as error:
            raise ImageError(str(error)) from None
        return await self.from_bytes((await self._downloader.download(cleaned)).body)
