"""Images side by side: read back by Pillow, pixel by pixel."""

from __future__ import annotations

import io

import numpy as np
import pytest

from colabkit.errors import ArgumentError
from colabkit.notebook.image_grid import grid_of, images_of, png_of, small_png
from tests.abilities import package

RNG = np.random.default_rng(0)


def read(png: bytes) -> np.ndarray:
    package("PIL").require()
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_another_reader_sees_the_same_pixels(channels):
    pixels = RNG.integers(0, 256, (5, 7, channels), dtype=np.uint8)
    found = read(png_of(pixels))
    assert np.array_equal(found.reshape(pixels.shape), pixels)


def test_images_stand_row_by_row_with_a_gap():
    images = RNG.integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
    grid = grid_of(images)
    assert grid.shape == (2 * 4 + 2, 3 * 6 + 2 * 2, 3)
    for number, image in enumerate(images):
        top, left = 6 * (number // 3), 8 * (number % 3)
        assert np.array_equal(grid[top : top + 4, left : left + 6], image)
    assert (grid[6:, 16:] == 255).all()


@pytest.mark.parametrize(
    "shape", [(2, 8, 8), (2, 8, 8, 1), (2, 1, 8, 8), (2, 8, 8, 3), (2, 3, 8, 8), (2, 4, 8, 8)]
)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "uint8", "bool"])
def test_forms_and_types_are_told_apart(shape, dtype):
    values = RNG.random(shape)
    images = values * 255 if dtype == "uint8" else values > 0.5 if dtype == "bool" else values
    images = images.astype(dtype)
    pixels, _, _ = images_of(images)
    channels = 1 if len(shape) == 3 else min(shape[1], shape[3])
    last = images[..., None] if len(shape) == 3 else images
    last = last if last.shape[3] == channels else np.moveaxis(last, 1, 3)
    scaled = last if dtype == "uint8" else np.round(last.astype(np.float32) * 255)
    assert pixels.shape == (2, 8, 8, channels)
    assert np.array_equal(pixels, scaled.astype(np.uint8))


def test_a_list_of_images_is_taken_and_no_more_than_64():
    images = [RNG.random((8, 8, 3)) for _ in range(70)]
    assert np.array_equal(images_of(images)[0], images_of(np.stack(images))[0])
    assert len(images_of(images)[0]) == 64


def test_what_is_no_number_is_black_and_what_is_beyond_is_cut():
    pixels, least, most = images_of(np.array([[[np.nan, -1.0, 2.0, np.inf]]]))
    assert pixels.ravel().tolist() == [0, 0, 255, 255]
    assert (least, most) == (-1.0, 2.0)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros(5),
        np.zeros((2, 5, 5, 5)),
        np.zeros((0, 8, 8)),
        np.zeros((2, 8, 8), np.int64),
        np.zeros((2, 8, 8), complex),
        np.array([["a"]]),
        [],
        [np.zeros((8, 8)), np.zeros((8, 9))],
        "cat.png",
        None,
    ],
    ids=str,
)
def test_what_is_no_image_is_named(images):
    with pytest.raises(ArgumentError, match="images"):
        images_of(images)


def test_large_images_are_thinned_and_a_bound_is_kept():
    images = RNG.integers(0, 256, (64, 200, 300, 3), dtype=np.uint8)
    assert max(grid_of(images).shape) <= 1024 + 2 * 8
    assert len(small_png(images, nbytes_max=24_000)) <= 24_000
    for nbytes in (12_000, 5_000, 1_000):
        assert len(small_png(images, nbytes_max=nbytes)) <= nbytes
    few = small_png(images[:, :8, :8], nbytes_max=24_000)
    assert np.array_equal(read(few), grid_of(images[:, :8, :8]))
