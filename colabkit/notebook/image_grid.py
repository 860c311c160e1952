"""Images side by side as one PNG, made without an image library."""

from __future__ import annotations

import math
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from colabkit.errors import ArgumentError

Pixels = npt.NDArray[np.uint8]

IMAGES_MAX, SIDE_MAX = 64, 1024
_GAP = 2
_CHANNELS = (1, 3, 4)
_HINT = (
    "Pass [N, H, W], [N, H, W, C] or [N, C, H, W] with 1, 3 or 4 channels: numbers from 0 to 1,"
    " or uint8."
)


def images_of(images: Any) -> tuple[Pixels, float, float]:
    """Returns images as [N, H, W, C] uint8, and the smallest and largest of their numbers.

    Args:
        images: An array or tensor of any framework, [N, H, W], [N, H, W, C] or [N, C, H, W], of
            numbers from 0 to 1 or uint8, or a list of images of one size. Numbers beyond are cut.

    Raises:
        ArgumentError: They are nothing of that.
    """
    is_tensor = hasattr(images, "detach")
    if isinstance(images, list | tuple):
        is_tensor = bool(images) and hasattr(images[0], "detach")
        shapes = {tuple(np.shape(each)) for each in images[:IMAGES_MAX]}
        if len(shapes) != 1:
            message = f"images is a list of images of {len(shapes)} sizes."
            raise ArgumentError(message, argument="images", hint="Pass images of one size.")
        values = np.stack([_values(each) for each in images[:IMAGES_MAX]])
    else:
        values = _values(images[:IMAGES_MAX] if hasattr(images, "shape") else images)
    shaped = _channels_last(values, first=is_tensor)
    if not shaped.size or shaped.dtype.kind not in "fbu" or shaped.dtype.itemsize > 8:
        message = f"images is {values.dtype} of {list(values.shape)}."
        raise ArgumentError(message, argument="images", hint=_HINT)
    if shaped.dtype == np.uint8:
        return shaped, 0.0, 1.0
    numbers = np.nan_to_num(shaped.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    pixels = (numbers.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    return pixels, float(numbers.min()), float(numbers.max())


def _values(images: Any) -> npt.NDArray[Any]:
    """Returns the numbers of an array or tensor, on whichever device."""
    if hasattr(images, "detach"):
        images = images.detach().cpu()
        # NumPy has no bfloat16.
        images = images.float() if images.is_floating_point() else images
        return np.asarray(images.numpy())
    values = np.asarray(images)
    return values.astype(np.float32) if values.dtype.name == "bfloat16" else values


def _channels_last(values: npt.NDArray[Any], *, first: bool) -> npt.NDArray[Any]:
    """Returns [N, H, W, C]; where both would do, tensors have their channels ``first``."""
    if values.ndim == 3:
        return values[..., None]
    if values.ndim == 4:
        places = [1, 3] if first else [3, 1]
        for place in places:
            if values.shape[place] in _CHANNELS:
                return np.moveaxis(values, place, 3)
    message = f"images has the shape {list(values.shape)}."
    raise ArgumentError(message, argument="images", hint=_HINT)


def grid_of(images: Pixels, *, side_max: int = SIDE_MAX) -> Pixels:
    """Returns images side by side, row by row, as [H, W, C]; large ones are thinned.

    Args:
        images: [N, H, W, C].
        side_max: Pixels of the grid's longer side, at most.
    """
    count, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    stride = max(1, math.ceil(max(rows * height, columns * width) / side_max))
    small = images[:, ::stride, ::stride]
    height, width = small.shape[1:3]
    shape = (rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, channels)
    grid = np.full(shape, 255, np.uint8)
    if channels == 4:
        grid[..., 3] = 0
    for number, image in enumerate(small):
        top, left = (
            place * (side + _GAP)
            for place, side in zip(divmod(number, columns), (height, width), strict=True)
        )
        grid[top : top + height, left : left + width] = image
    return grid


def png_of(pixels: Pixels) -> bytes:
    """Returns [H, W, C] with 1, 3 or 4 channels as a PNG file.

    Source:
        W3C, "Portable Network Graphics": a signature, then chunks of length, name, data and CRC;
        each row of pixels begins with its filter, 0 for none.
    """
    height, width, channels = pixels.shape
    kind = {1: 0, 3: 2, 4: 6}[channels]
    rows = np.zeros((height, 1 + width * channels), np.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


# Images, and pixels of the grid's longer side: what a picture of fewer bytes gives up in turn.
_SMALLER = (
    (IMAGES_MAX, 384), (16, 384), (IMAGES_MAX, 192), (16, 192), (4, 192), (16, 96), (4, 96),
    (4, 48), (1, 48), (1, 24), (1, 12),
)  # fmt: skip
# Of a channel's 8 bits; the others are noise that takes most of a photograph's bytes.
_BITS_KEPT = (0xFF, 0xF0)


def small_png(images: Pixels, *, nbytes_max: int) -> bytes:
    """Returns the PNG of as many images as a number of bytes allows, thinned where one is large.

    Where nothing is small enough, it is the smallest.
    """
    made = b""
    for count, side in _SMALLER:
        grid = grid_of(images[:count], side_max=side)
        for bits in _BITS_KEPT:
            made = png_of(grid & np.uint8(bits))
            if len(made) <= nbytes_max:
                return made
    return made
