"""Frameworks: never changed by the way, and installed in the build that fits the machine."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import re
from collections.abc import Sequence

from colabkit.errors import PackageChangeError
from colabkit.runtime import DriverReport, PackageCheck, PackageState, read_driver

# Each of these is built against the others and against the machine's driver.
FRAMEWORKS = (
    "jax",
    "jaxlib",
    "keras",
    "numpy",
    "tensorflow",
    "tensorflow-cpu",
    "tf-keras",
    "torch",
    "torchaudio",
    "torchvision",
)
_OF_TORCH = ("torch", "torchaudio", "torchvision")
_TORCH_INDEX = "COLABKIT_TORCH_INDEX"
_OPTIONS_OF_CUDA = {"jax": "jax[cuda{major}]", "tensorflow": "tensorflow[and-cuda]"}


@dataclasses.dataclass(frozen=True, slots=True)
class Build:
    """How requirements are installed here.

    Attributes:
        requirements: As pip is given them.
        options: What pip is told besides.
        name: Names the build: "cu126", "" when any machine gets the same.
    """

    requirements: tuple[str, ...]
    options: tuple[str, ...] = ()
    name: str = ""


def canonical(name: str) -> str:
    """Returns a package's name as its lists write it.

    Example:
        >>> canonical("Scikit_Learn")
        'scikit-learn'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_version(name: str) -> str | None:
    """Returns the version of a package, None when it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def pins() -> dict[str, str]:
    """Returns the version of every framework that is installed."""
    found = {name: installed_version(name) for name in FRAMEWORKS}
    return {name: version for name, version in found.items() if version is not None}


def refuse_changes(checks: Sequence[PackageCheck]) -> None:
    """Refuses a framework asked for in another version than is installed.

    Raises:
        PackageChangeError: One is.
    """
    asked = [
        check
        for check in checks
        if check.state is PackageState.OTHER_VERSION and canonical(check.name) in FRAMEWORKS
    ]
    if asked:
        changes = {check.name: (check.version or "", check.requirement) for check in asked}
        said = ", ".join(f"{c.requirement} asks to replace {c.name} {c.version}" for c in asked)
        raise change_error(said, changes)


def change_error(reason: str, changes: dict[str, tuple[str, str]]) -> PackageChangeError:
    """Returns the error for a request that would change a framework."""
    message = f"Nothing was installed: {reason}, and the machine's other packages rely on it."
    hint = (
        "Ask for a version that fits what is installed, or pass allow_changes=True to setup and"
        " restart the session after it."
    )
    return PackageChangeError(message, changes=changes, hint=hint)


def torch_build(report: DriverReport | None) -> str:
    """Returns the build of PyTorch that a driver runs: "cpu", "cu118", "cu126", "cu130".

    Source:
        PyTorch's "Get started" page names the builds; NVIDIA's "CUDA compatibility" says that a
        build for CUDA 12 runs on every driver of CUDA 12.

    Example:
        >>> torch_build(None)
        'cpu'
    """
    if report is None or not report.gpus:
        return "cpu"
    major, _, minor = report.cuda_version.partition(".")
    version = (int(major), int(minor or 0)) if major.isdigit() else (12, 0)
    known = {(13, 0): "cu130", (12, 0): "cu126", (11, 8): "cu118"}
    return next((name for least, name in known.items() if version >= least), "cpu")


def _torch_options(build: str) -> tuple[str, ...]:
    """Returns where pip also looks for a build of PyTorch.

    Where the variable ``COLABKIT_TORCH_INDEX`` has the address of an index with a folder for each
    build, that one is taken; else the common one, which runs on a GPU and on a CPU.
    """
    address = os.environ.get(_TORCH_INDEX, "").rstrip("/")
    # "2.9.0+cu126" counts as newer than "2.9.0", so that this build is the one taken.
    return ("--extra-index-url", f"{address}/{build}") if address else ()


def build_for(missing: Sequence[PackageCheck], report: DriverReport | None = None) -> Build:
    """Returns how missing requirements are installed on this machine.

    Args:
        missing: Those that are not satisfied.
        report: What the GPU driver says; asked when a framework is missing.

    Example:
        >>> build_for([PackageCheck("timm", "timm", PackageState.MISSING)]).options
        ()
    """
    names = {canonical(c.name) for c in missing if c.state is PackageState.MISSING}
    plain = tuple(check.requirement for check in missing)
    if not names & {*_OF_TORCH, *_OPTIONS_OF_CUDA}:
        return Build(plain)
    report = read_driver() if report is None else report
    build = torch_build(report)
    options: tuple[str, ...] = ()
    if names & {*_OF_TORCH}:
        options = _torch_options(build)
    if build != "cpu":
        major = "13" if build == "cu130" else "12"
        plain = tuple(_with_cuda(each, major) for each in plain)
    return Build(plain, options, build)


def _with_cuda(requirement: str, major: str) -> str:
    match = re.match(r"\s*(jax|tensorflow)\b(?!\s*\[|-)(.*)", requirement)
    if match is None:
        return requirement
    return _OPTIONS_OF_CUDA[match[1]].format(major=major) + match[2]
