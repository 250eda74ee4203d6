"""The images of a request, as `ingest` would store them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any

from caslie_ray.dataset.online import ImageError, ImageReader, StoredImage
from caslie_ray.serving._problems import ApiError
from caslie_ray.serving._schemas import ImageInput

__all__ = ["read_images"]


async def read_images(
    images: Sequence[ImageInput | None], uploads: Sequence[bytes], reader: ImageReader
) -> list[StoredImage | None]:
    """Return the stored images, in order; None for None.

    Args:
        images: of the request. An empty object stands for the next uploaded file.
        uploads: the uploaded files.
        reader: downloads and decodes.

    Raises:
        ApiError: an image cannot be used, or the number of uploads is not that of the empty objects.
    """
    empty = sum(image is not None and image.url is None and image.base64 is None for image in images)
    if empty != len(uploads):
        raise ApiError(
            422,
            f"{len(uploads)} files were uploaded for {empty} images without url and base64: give one of them per image,"
            " or upload as many files",
            field="images",
        )
    rest = iter(uploads)
    found = await asyncio.gather(*(_read(image, rest, reader) for image in images), return_exceptions=True)
    stored: list[StoredImage | None] = []
    for at, result in enumerate(found):
        if isinstance(result, ImageError):
            raise _refused(result, f"images.{at}")
        if isinstance(result, BaseException):
            raise result
        stored.append(result)
    return stored


def _read(
    image: ImageInput | None, uploads: Iterator[bytes], reader: ImageReader
) -> Coroutine[Any, Any, StoredImage | None]:
    if image is None:
        return _nothing()
    if image.url is not None:
        return reader.from_url(image.url)
    if image.base64 is not None:
        return reader.from_base64(image.base64)
    return reader.from_bytes(next(uploads))


async def _nothing() -> None:
    return None


def _refused(error: ImageError, field: str) -> ApiError:
    if error.reason.startswith(("too many", "too much")):
        return ApiError(413, error.reason, field=field)
    if error.reason.startswith("not an image"):
        return ApiError(415, error.reason, field=field)
    return ApiError(422, error.reason, field=field)
