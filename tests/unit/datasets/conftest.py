"""A cache folder of its own for each test."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Returns the folder that datasets are made in."""
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "datasets"
