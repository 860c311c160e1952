"""Where colabkit keeps what may be lost with the machine, and what it says where it cannot."""

from __future__ import annotations

import os
import pwd

import numpy as np
import pytest

from colabkit.errors import StorageError
from colabkit.storage import LocalVolume, cache_folder, make_in_cache

WAY_ON = "Set COLABKIT_CACHE to a folder of this machine that you may write to"


@pytest.fixture
def no_cache(monkeypatch, tmp_path):
    """A home in which nobody can write, root included: it is a file."""
    monkeypatch.delenv("COLABKIT_CACHE", raising=False)
    home = tmp_path / "home"
    home.touch()
    monkeypatch.setenv("HOME", str(home))


@pytest.mark.usefixtures("no_cache")
def test_a_home_that_cannot_be_written_to_is_told_with_the_variable_that_helps(tmp_path):
    with pytest.raises(StorageError, match="could not make its folder") as told:
        make_in_cache(cache_folder() / "projects")
    assert told.value.hint.startswith(WAY_ON)
    spool = LocalVolume(cache_folder() / "spool")
    with pytest.raises(StorageError) as told:
        spool.write("x", [np.zeros(3, np.uint8)])
    assert told.value.hint.startswith(WAY_ON)
    # What the user has chosen is another matter.
    with pytest.raises(StorageError) as told:
        LocalVolume(tmp_path / "home" / "runs").write("x", [np.zeros(3, np.uint8)])
    assert "COLABKIT_CACHE" not in told.value.hint


def test_a_user_without_a_home_is_told_the_same(monkeypatch):
    monkeypatch.delenv("COLABKIT_CACHE", raising=False)
    monkeypatch.delenv("HOME")
    nobody = max(entry.pw_uid for entry in pwd.getpwall()) + 12345
    monkeypatch.setattr(os, "getuid", lambda: nobody)
    with pytest.raises(StorageError, match="no home folder") as told:
        cache_folder()
    assert told.value.hint.startswith(WAY_ON)
    monkeypatch.setenv("COLABKIT_CACHE", "/tmp/mine")
    assert str(cache_folder()) == "/tmp/mine"
