"""The build of a framework that fits the machine."""

from __future__ import annotations

import pytest

from colabkit.packages.frameworks import build_for, torch_build
from colabkit.runtime import DriverReport, Gpu, check_packages

T4 = Gpu("Tesla T4")


def driver(cuda: str) -> DriverReport:
    return DriverReport((T4,), version="550.54.15", cuda_version=cuda)


@pytest.mark.parametrize(
    ("report", "build"),
    [
        (DriverReport(), "cpu"),
        (driver("13.1"), "cu130"),
        (driver("12.4"), "cu126"),
        (driver("12.0"), "cu126"),
        (driver("11.8"), "cu118"),
        (driver("11.2"), "cpu"),
        (driver(""), "cu126"),
    ],
)
def test_pytorch_is_taken_in_the_build_that_the_driver_runs(report, build):
    assert torch_build(report) == build


def missing(*requirements):
    found = check_packages(requirements)
    assert not any(check.version for check in found)
    return found


@pytest.fixture
def bare(monkeypatch):
    """No framework is installed."""
    monkeypatch.setattr("colabkit.runtime.packages._installed", lambda name: None)


def test_the_build_is_asked_for_only_where_a_framework_is_missing(bare, monkeypatch):
    monkeypatch.delenv("COLABKIT_TORCH_INDEX", raising=False)
    assert build_for(missing("torch>=2"), driver("12.4")).options == ()
    monkeypatch.setenv("COLABKIT_TORCH_INDEX", "https://example.org/whl/")
    assert build_for(missing("timm"), driver("12.4")).options == ()
    build = build_for(missing("torch>=2", "timm"), driver("12.4"))
    assert build.requirements == ("torch>=2", "timm")
    assert build.options == ("--extra-index-url", "https://example.org/whl/cu126")
    assert build.name == "cu126"


@pytest.mark.parametrize(
    ("asked", "cuda", "taken"),
    [
        ("jax", "12.4", "jax[cuda12]"),
        ("jax>=0.5", "13.0", "jax[cuda13]>=0.5"),
        ("tensorflow==2.19", "12.4", "tensorflow[and-cuda]==2.19"),
        ("tensorflow[and-cuda]", "12.4", "tensorflow[and-cuda]"),
        ("tensorflow-datasets", "12.4", "tensorflow-datasets"),
    ],
)
def test_other_frameworks_bring_their_libraries_for_the_gpu(bare, asked, cuda, taken):
    extra = missing(asked, "jax") if asked.startswith("tensorflow-") else missing(asked)
    assert build_for(extra, driver(cuda)).requirements[0] == taken


def test_without_a_gpu_they_are_taken_as_asked(bare):
    assert build_for(missing("jax", "tensorflow"), DriverReport()).requirements == (
        "jax",
        "tensorflow",
    )
