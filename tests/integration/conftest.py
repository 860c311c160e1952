"""What tests on the Colab double share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.abilities import COLAB
from tests.colab_vm import Cloud


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    """An empty Drive account; its machines end with the test."""
    COLAB.require()
    with Cloud(tmp_path / "cloud") as cloud:
        yield cloud
