"""What of the required packages is here is known without installing or importing any."""

from __future__ import annotations

import importlib

import psutil
import pytest

from colabkit.errors import ArgumentError
from colabkit.runtime import (
    PackageState,
    check_packages,
    is_same_version,
    missing,
    requirement_allows,
)

STATES = {
    "psutil": PackageState.PRESENT,
    "PSUtil >= 5": PackageState.PRESENT,
    "psutil<1": PackageState.OTHER_VERSION,
    "no-such-package-anywhere": PackageState.MISSING,
    "no-such-package-anywhere; python_version < '3'": PackageState.NOT_NEEDED,
    "psutil[test]": PackageState.UNKNOWN,
    "psutil @ file:///somewhere": PackageState.UNKNOWN,
}


@pytest.mark.parametrize(("requirement", "state"), STATES.items())
def test_each_requirement_has_its_state(requirement, state):
    (check,) = check_packages([requirement])
    assert check.state is state
    assert check.requirement == requirement
    if state is not PackageState.MISSING and state is not PackageState.NOT_NEEDED:
        assert check.version == psutil.__version__


def test_only_what_needs_installing_is_missing():
    assert [check.requirement for check in missing(STATES)] == [
        "psutil<1",
        "no-such-package-anywhere",
        "psutil[test]",
        "psutil @ file:///somewhere",
    ]
    assert missing("psutil") == ()
    assert missing([]) == ()


@pytest.mark.parametrize("bad", ["", "!pip install x", "a b", "-r requirements.txt", 3, None])
def test_what_names_no_package_is_refused(bad):
    with pytest.raises(ArgumentError, match="names no package"):
        check_packages([bad])


def test_an_address_without_a_name_is_told_how_to_have_one():
    with pytest.raises(ArgumentError, match="Put its name before its address"):
        check_packages("git+https://github.com/openai/CLIP.git")


@pytest.fixture
def take_away(monkeypatch):
    """Makes modules with these beginnings absent."""
    real = importlib.import_module

    def take(*beginnings: str) -> None:
        def absent(name: str) -> object:
            if name.startswith(beginnings):
                raise ImportError(name)
            return real(name)

        monkeypatch.setattr(importlib, "import_module", absent)

    return take


@pytest.mark.filterwarnings("ignore:Setuptools is replacing distutils")  # older ones say so
def test_in_a_fresh_virtual_environment_pips_own_copy_of_packaging_answers(take_away):
    take_away("packaging")
    for requirement, state in STATES.items():
        assert check_packages([requirement])[0].state is state
    assert requirement_allows("numpy<2", "numpy", "2.4.1") is False
    assert is_same_version("1.0.post1", "1.0-1")


def test_without_packaging_bare_names_are_still_answered(take_away):
    take_away("packaging", "pip.")
    states = [c.state for c in check_packages(["psutil", "psutil>=1", "no-such-package-anywhere"])]
    assert states == [PackageState.PRESENT, PackageState.UNKNOWN, PackageState.MISSING]
    with pytest.raises(ArgumentError):
        check_packages(["!pip"])
