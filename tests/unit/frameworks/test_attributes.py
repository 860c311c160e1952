"""Which classes are the user's own: those that no package manager has put where they lie."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from colabkit.frameworks.users_own import is_of_package, is_of_users_class

RECORD = "thing_of_ours/__init__.py,sha256=abc,0\nlonely_thing.py,sha256=abc,0\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """As ``pip install --target`` leaves it, on Drive say, with a script of the user's beside."""
    (tmp_path / "thing_of_ours").mkdir()
    for name in ("thing_of_ours/__init__.py", "lonely_thing.py", "script_of_mine.py"):
        (tmp_path / name).write_text("class Kind:\n    pass\n")
    (tmp_path / "thing-1.0.dist-info").mkdir()
    (tmp_path / "thing-1.0.dist-info" / "RECORD").write_text(RECORD)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("thing_of_ours", "lonely_thing", "script_of_mine"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("name", "is_users"),
    [("thing_of_ours", False), ("lonely_thing", False), ("script_of_mine", True)],
)
@pytest.mark.usefixtures("folder")
def test_what_pip_has_put_into_a_folder_of_its_own_is_a_library(name, is_users):
    assert is_of_users_class(importlib.import_module(name).Kind) is is_users


@pytest.mark.parametrize(
    ("file", "is_library"),
    [
        (importlib.__file__, True),
        (pytest.__file__, True),
        (f"{sys.prefix}/other/site-packages/thing.py", True),
        ("/home/me/lib/python/thing.py", False),
        ("/home/me/lib/python3.11-experiments/thing.py", False),
    ],
)
def test_a_folder_of_the_users_that_is_called_as_pythons_own_is_the_users(file, is_library):
    assert is_of_package(file) is is_library
