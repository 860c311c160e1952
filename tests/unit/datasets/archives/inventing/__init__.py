"""Invents small archives, each from a number: habits, dialects and oddities, a few in each."""

from __future__ import annotations

import random

from tests.unit.datasets.archives.inventing.members import Invented
from tests.unit.datasets.archives.inventing.tars import invented_tar
from tests.unit.datasets.archives.inventing.zips import invented_zip


def invented(number: int) -> Invented:
    """Returns an archive, always the same one for a number."""
    draw = random.Random(number)
    return (invented_zip if draw.random() < 0.5 else invented_tar)(number, draw)
