"""What pip and uv are asked to do, and what they answered."""

from __future__ import annotations

import dataclasses
import enum
import importlib.util
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from colabkit.packages.frameworks import installed_version
from colabkit.storage import Ended, run_program

_HOUR_S = 3600.0
_QUIET = ("--quiet", "--no-input", "--no-color", "--disable-pip-version-check")
# Without a network pip would try each package six times, and for minutes.
_NETWORK = ("--retries", "1", "--timeout", "15")
_SIGNS_OF_NO_NETWORK = (
    "name resolution",
    "Name or service not known",
    "NewConnectionError",
    "Network is unreachable",
    "No route to host",
    "ConnectTimeoutError",
    "Connection refused",
    "Failed to establish a new connection",
    "Failed to resolve",
)
_SIGNS_OF_CONFLICT = ("conflicting dependencies", "ResolutionImpossible", "requires a different")


class Trouble(enum.Enum):
    """Why something could not be installed."""

    NO_PIP = "pip is not installed"
    NO_NETWORK = "the network cannot be reached"
    CONFLICT = "the requirements contradict each other"
    REFUSED = "pip refused"


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong.

    Attributes:
        trouble: Its kind.
        said: pip's own words.
    """

    trouble: Trouble
    said: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Planned:
    """A package that would be installed.

    Attributes:
        name: Its name.
        version: The version.
        source: What pip fetches it by: "timm==1.0.12".
        requires: What it needs, as its metadata says.
        previous: The version it takes the place of, None without one.
        content: What its address leads to now, as a commit; "" where it has no address.
    """

    name: str
    version: str
    source: str
    requires: tuple[str, ...] = ()
    previous: str | None = None
    content: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What a plan came to: packages, or a failure."""

    packages: tuple[Planned, ...] = ()
    failure: Failure | None = None


def plan(
    requirements: Sequence[str],
    *,
    folder: Path,
    options: Sequence[str] = (),
    pins: Mapping[str, str] | None = None,
    offline: bool = False,
) -> Answer:
    """Finds out, by a dry run, what installing would do.

    Args:
        requirements: As pip takes them.
        folder: Wheels that are here already.
        options: What pip is told besides.
        pins: The versions that may not change, by name.
        offline: Whether only the wheels of the folder may be used.
    """
    if importlib.util.find_spec("pip") is None:
        return Answer(failure=Failure(Trouble.NO_PIP))
    with tempfile.TemporaryDirectory(prefix="colabkit-plan-") as temporary:
        constraints, report = Path(temporary, "pins.txt"), Path(temporary, "report.json")
        lines = [f"{name}=={version}" for name, version in (pins or {}).items()]
        constraints.write_text("\n".join(lines), encoding="utf-8")
        where = ("--no-index",) if offline else (*_NETWORK, *options)
        ended = _pip(
            "install", "--dry-run", "--report", str(report), "--constraint", str(constraints),
            "--find-links", str(folder), *where, *requirements,
        )  # fmt: skip
        if ended.code == 0:
            installs = json.loads(report.read_text(encoding="utf-8"))["install"]
            # What was asked for comes first, then what it needs.
            installs.sort(key=lambda item: (not item["requested"], item["metadata"]["name"]))
            return Answer(tuple(_planned(item) for item in installs))
    return Answer(failure=_failure(ended))


def fetch(packages: Sequence[Planned], *, folder: Path, options: Sequence[str]) -> Failure | None:
    """Gets the wheel of each package into a folder; builds it where there is none."""
    sources = [package.source for package in packages]
    ended = _pip(
        "wheel", "--no-deps", "--wheel-dir", str(folder), "--find-links", str(folder),
        *_NETWORK, *options, *sources,
    )  # fmt: skip
    return None if ended.code == 0 else _failure(ended)


def install(wheels: Sequence[Path]) -> Failure | None:
    """Installs wheels as they are, with uv where it is here and works, else with pip."""
    files = [str(wheel) for wheel in wheels]
    uv = shutil.which("uv")
    if uv is not None:
        command = [uv, "pip", "install", "--python", sys.executable, "--offline", "--no-index"]
        ended = run_program(
            [*command, "--no-deps", "--quiet", *files],
            timeout_s=_HOUR_S,
            environment={"UV_LINK_MODE": "copy"},
        )
        if ended.code == 0:
            return None
    ended = _pip("install", "--no-index", "--no-deps", *files)
    return None if ended.code == 0 else _failure(ended)


def _pip(verb: str, *arguments: str) -> Ended:
    command = [sys.executable, "-m", "pip", verb, *_QUIET, *arguments]
    return run_program(command, timeout_s=_HOUR_S)


def _planned(item: Mapping[str, Any]) -> Planned:
    metadata, name = item["metadata"], item["metadata"]["name"]
    is_direct = bool(item.get("is_direct"))
    url = item["download_info"]["url"]
    commit = item["download_info"].get("vcs_info", {})
    archive = item["download_info"].get("archive_info", {})
    # pip 23.0 and older know "hash" alone, with the name of its kind in front.
    sha256 = archive.get("hashes", {}).get("sha256") or archive.get("hash", "").partition("=")[2]
    content = commit.get("commit_id") or sha256
    if commit:
        url = f"{commit['vcs']}+{url}@{commit['commit_id']}"
    return Planned(
        name=name,
        version=metadata["version"],
        source=f"{name} @ {url}" if is_direct else f"{name}=={metadata['version']}",
        requires=tuple(metadata.get("requires_dist", ())),
        previous=installed_version(name),
        content=content if is_direct else "",
    )


def _failure(ended: Ended) -> Failure:
    said = _words(ended)
    if any(sign in ended.stderr for sign in _SIGNS_OF_NO_NETWORK):
        return Failure(Trouble.NO_NETWORK, said)
    if any(sign in ended.stderr for sign in _SIGNS_OF_CONFLICT):
        return Failure(Trouble.CONFLICT, said)
    return Failure(Trouble.REFUSED, said)


def _words(ended: Ended) -> str:
    """Returns the line that tells most; addresses may hold somebody's password."""
    lines = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
    told = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    said = (told or [ended.said])[-1]
    return re.sub(r"(\w+://)[^/@\s]+@", r"\1", said)
