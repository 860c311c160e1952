"""On Kaggle an input is found by its name; elsewhere a path means what it says."""

from __future__ import annotations

import pytest

from colabkit.errors import ArgumentError
from colabkit.runtime import Platform
from colabkit.storage import inputs, locate_input


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """Inputs as Kaggle lays them out, in both of its manners."""
    root = tmp_path / "input"
    for name in ("cats/train/a.png", "datasets/someone/dogs/dogs/b.png", "titanic/train.csv"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    monkeypatch.setattr(inputs, "_KAGGLE_INPUT", root)
    (tmp_path / "working").mkdir()
    monkeypatch.chdir(tmp_path / "working")
    return root


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("cats", "cats"),
        ("cats.zip", "cats"),
        ("MyDrive/cats.zip", "cats"),
        ("/content/drive/MyDrive/data/cats.tar.gz", "cats"),
        ("/content/drive/MyDrive/data/cats.zip", "cats"),
        ("dogs", "datasets/someone/dogs"),
        ("dogs/b.png", "datasets/someone/dogs/dogs/b.png"),
        ("titanic/train.csv", "titanic/train.csv"),
        ("train.csv", "titanic/train.csv"),
        ("birds", None),
        ("/data/cats", None),
        ("../cats", None),
    ],
)
def test_an_input_is_found_by_the_last_parts_of_its_name(kaggle, asked, found):
    where = locate_input(asked, platform=Platform.KAGGLE)
    assert where.exists() == (found is not None)
    if found is not None:
        assert where == kaggle / found


def test_what_is_there_already_is_not_looked_for(kaggle, tmp_path):
    (tmp_path / "working/cats").mkdir()
    assert str(locate_input("cats", platform=Platform.KAGGLE)) == "cats"
    assert str(locate_input("titanic", platform=Platform.OTHER)) == "titanic"


def test_two_inputs_of_one_name_are_told_apart_by_the_user(kaggle):
    (kaggle / "digits").mkdir()
    (kaggle / "digits/train.csv").write_text("")
    with pytest.raises(ArgumentError, match=r"train.csv may be .*digits.* or .*titanic"):
        locate_input("train.csv", platform=Platform.KAGGLE)
    assert locate_input("digits/train.csv", platform=Platform.KAGGLE).exists()
