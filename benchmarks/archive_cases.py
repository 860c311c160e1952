"""Archives to time: 20,000 small photographs, and a few large tables, packed in each way."""

from __future__ import annotations

import io
import random
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

N_SMALL = 20_000
_N_TABLES, _TABLE_ROWS = 8, 600_000

Files = Callable[[], Iterator[tuple[str, bytes]]]


@dataclass(frozen=True, slots=True)
class Case:
    """An archive, what unpacks it elsewhere, and how much faster it shall be.

    Attributes:
        base: The program that the ratio is to.
        rival: The archive that the program unpacks, when not the same one: people who could
            have packed with zstd mostly have a tar.gz.
    """

    name: str
    archive: Path
    base: str
    wanted: float
    wanted_plain: float | None = None
    rival: Path | None = None


def photos() -> Iterator[tuple[str, bytes]]:
    """Yields 20,000 JPEGs of a few kilobytes in 100 folders."""
    rng = np.random.default_rng(0)
    for number in range(N_SMALL):
        yield f"photos/class_{number % 100:02}/{number:05}.jpg", _photo(rng)


def tables() -> Iterator[tuple[str, bytes]]:
    """Yields large CSVs of readings that drift."""
    for number in range(_N_TABLES):
        rng = np.random.default_rng(number)
        values = np.cumsum(rng.normal(0, 0.1, (_TABLE_ROWS, 3)), axis=0).round(3)
        rows = (f"{n},{a},{b},{c}\n" for n, (a, b, c) in enumerate(values.tolist()))
        yield f"tables/sensor_{number}.csv", "".join(rows).encode()


def make_cases(folder: Path) -> list[Case]:
    """Packs everything into a folder; returns what to time."""
    small, large = folder / "small", folder / "large"
    _write(photos(), small)
    _write(tables(), large)
    zips = [
        Case("20,000 small files, deflated zip", folder / "small.zip", "unzip", 3.3, 2.5),
        Case("20,000 small files, stored zip", folder / "stored.zip", "unzip", 4.0),
        Case("8 large tables, deflated zip", folder / "large.zip", "unzip", 5.0, 2.5),
    ]
    for case, source, method in zip(zips, (small, small, large), (8, 0, 8), strict=True):
        _pack_zip(source, case.archive, method)
    tars = [
        Case("20,000 small files, tar.gz", folder / "small.tar.gz", "tar", 2.0),
        Case("8 large tables, tar.gz", folder / "large.tar.gz", "tar", 4.5),
    ]
    for case, source in zip(tuple(tars), (small, large), strict=True):
        zst = case.archive.with_suffix(".zst")
        for archive in (case.archive, zst):
            subprocess.run(["tar", "-caf", archive, "-C", source, "."], check=True)
        name = case.name.replace("tar.gz", "tar.zst")
        tars.append(Case(name, zst, "tar", 2.5, rival=case.archive))
    return zips + tars


def _photo(rng: np.random.Generator) -> bytes:
    coarse = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    fine = np.asarray(Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC))
    noisy = np.clip(fine + rng.normal(0, 12, fine.shape), 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(noisy).save(out, "JPEG", quality=85)
    return out.getvalue()


def _write(files: Iterator[tuple[str, bytes]], into: Path) -> None:
    for path, data in files:
        (into / path).parent.mkdir(parents=True, exist_ok=True)
        (into / path).write_bytes(data)


def _pack_zip(folder: Path, archive: Path, method: int) -> None:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    random.Random(0).shuffle(paths)
    paths.sort(key=lambda path: path.parent)
    with zipfile.ZipFile(archive, "w", method) as packed:
        for path in paths:
            packed.write(path, path.relative_to(folder))
