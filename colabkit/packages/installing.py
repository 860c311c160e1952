"""install_packages(): what is missing is installed, and kept for the next machine."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from colabkit.errors import StorageError
from colabkit.packages import pip_runs
from colabkit.packages.frameworks import (
    FRAMEWORKS,
    Build,
    build_for,
    canonical,
    change_error,
    pins,
    refuse_changes,
)
from colabkit.packages.pip_runs import Failure, Planned, Trouble
from colabkit.packages.requests import PackageRequest
from colabkit.packages.wheelhouse import Brought, Wheelhouse, key_of
from colabkit.runtime import (
    PackageCheck,
    PackageState,
    Platform,
    check_packages,
    detect_platform,
    is_same_version,
    requirement_allows,
)

_NAMES_SHOWN = 4
_ADVICE = {
    Trouble.NO_PIP: "Install pip, or the packages by hand.",
    Trouble.NO_NETWORK: "Run the cell again when the network is there; all else works.",
    Trouble.CONFLICT: "Ask for versions that fit together.",
    Trouble.REFUSED: "Check the name and the version.",
}
_KAGGLE_OFFLINE = (
    "The internet is off for this notebook: Settings → Internet on, or add the output of a"
    " notebook that had it on as an input; all else works."
)


@dataclasses.dataclass(frozen=True, slots=True)
class Installed:
    """How the packages stand after all that could be done.

    Attributes:
        checks: Each requirement.
        notes: What the user should know, one sentence each.
        has_new_framework: Whether a framework is among what was installed.
    """

    checks: tuple[PackageCheck, ...]
    notes: tuple[str, ...] = ()
    has_new_framework: bool = False


def install_packages(
    request: PackageRequest,
    *,
    allow_changes: bool = False,
    places: Sequence[str | Path] = (),
    say: Callable[[str], None],
    platform: Platform | None = None,
) -> Installed:
    """Installs what is missing of a request, from kept wheels or from the network.

    Args:
        request: What was asked for.
        allow_changes: Whether a framework may be changed by it.
        places: Folders with wheels; new ones are kept in the first.
        say: Tells the user a sentence.
        platform: The kind of machine; found out by default.

    Raises:
        ArgumentError: A requirement is none.
        PackageChangeError: It would change a framework.

    Example:
        >>> install_packages(PackageRequest(("pip",)), say=print).checks[0].state
        <PackageState.PRESENT: 'installed as required'>
    """
    checks = check_packages(request.requirements)
    missing = [check for check in checks if not check.is_satisfied]
    if not missing:
        return Installed(checks)
    if not allow_changes:
        refuse_changes(missing)
    platform = detect_platform() if platform is None else platform
    with tempfile.TemporaryDirectory(prefix="colabkit-wheels-") as folder:
        work = _Installation(request, missing, Path(folder), say, platform)
        return work.run(places, pinned={} if allow_changes else pins())


class _Installation:
    def __init__(
        self,
        request: PackageRequest,
        missing: Sequence[PackageCheck],
        folder: Path,
        say: Callable[[str], None],
        platform: Platform,
    ) -> None:
        self._request = request
        self._build: Build = build_for(missing)
        self._key = key_of(request, self._build.name)
        self._folder = folder
        self._say = say
        self._platform = platform
        self._notes: list[str] = []
        self._began_s = time.monotonic()

    def run(self, places: Sequence[str | Path], *, pinned: Mapping[str, str]) -> Installed:
        houses = self._houses(places)
        brought = self._brought(houses)
        if brought.is_complete:
            plan = pip_runs.plan(
                self._build.requirements, folder=self._folder, pins=pinned, offline=True
            )
            if plan.failure is None and not self._drop_stale(plan.packages, brought):
                failure = self._install(plan.packages, "kept wheels, offline")
                return self._ended(failure, plan.packages)
        return self._from_network(brought, pinned, houses)

    def _from_network(
        self, brought: Brought, pinned: Mapping[str, str], houses: Sequence[Wheelhouse]
    ) -> Installed:
        build, folder = self._build, self._folder
        options = (*self._request.options, *build.options)
        need = "it needs" if len(build.requirements) == 1 else "they need"
        self._say(f"Looking up {_named(build.requirements)} and what {need}.")
        plan = pip_runs.plan(build.requirements, folder=folder, options=options, pins=pinned)
        if plan.failure is not None:
            if pinned and plan.failure.trouble is not Trouble.NO_NETWORK:
                self._refuse_what_would_change(pinned, options)
            return self._ended(plan.failure, ())
        failure = None
        self._drop_stale(plan.packages, brought)
        if plan.packages:
            failure = pip_runs.fetch(plan.packages, folder=folder, options=options)
        failure = failure or self._install(plan.packages, "the network")
        if failure is None and plan.packages and houses:
            self._keep(houses[0], plan.packages, brought)
        return self._ended(failure, plan.packages)

    def _refuse_what_would_change(self, pinned: Mapping[str, str], options: Sequence[str]) -> None:
        free = pip_runs.plan(self._build.requirements, folder=self._folder, options=options)
        changes, reasons = {}, []
        for package in free.packages:
            then = pinned.get(canonical(package.name))
            if then is None or then == package.version:
                continue
            changes[package.name] = (then, package.version)
            who = _demanding(package.name, then, free.packages)
            because = f"{who} needs another version than" if who else "it would replace"
            reasons.append(f"{because} {package.name} {then} (it takes {package.version})")
        if changes:
            raise change_error("; ".join(reasons), changes)

    def _install(self, packages: Sequence[Planned], source: str) -> Failure | None:
        if not packages:
            return None
        failure = pip_runs.install([self._wheel_of(package) for package in packages])
        if failure is None:
            importlib.invalidate_caches()
            names = [f"{package.name} {package.version}" for package in packages]
            took_s = time.monotonic() - self._began_s
            self._notes.append(f"Installed {_named(names)} from {source} in {took_s:.1f} s.")
            self._notes += _after_changes(packages)
        return failure

    def _drop_stale(self, packages: Sequence[Planned], brought: Brought) -> bool:
        """Removes kept wheels of addresses that lead to something else by now; True for any."""
        kept = {wheel.name: wheel.content for wheel in brought.wheels}
        stale = [
            path
            for package in packages
            for path in self._wheels_of(package)
            if package.content and kept.get(path.name, package.content) != package.content
        ]
        for path in stale:
            path.unlink()
        return bool(stale)

    def _wheels_of(self, package: Planned) -> Iterator[Path]:
        for path in sorted(self._folder.glob("*.whl")):
            name, version = path.name.split("-")[:2]
            if canonical(name) == canonical(package.name) and is_same_version(
                version, package.version
            ):
                yield path

    def _wheel_of(self, package: Planned) -> Path:
        for path in self._wheels_of(package):
            return path
        message = f"pip left no wheel of {package.name} {package.version}."
        raise StorageError(message, path=self._folder, operation="fetch")

    def _houses(self, places: Sequence[str | Path]) -> list[Wheelhouse]:
        houses = []
        for place in places:
            try:
                houses.append(Wheelhouse(place))
            except StorageError as error:
                self._notes.append(f"Wheels are not kept: {error.message}")
        return houses

    def _brought(self, houses: Sequence[Wheelhouse]) -> Brought:
        best = Brought()
        for house in houses:
            try:
                found = house.bring(self._key, self._folder)
            except StorageError as error:
                self._notes.append(f"Kept wheels cannot be read: {error.message}")
                continue
            best = found if len(found.wheels) > len(best.wheels) else best
            if best.is_complete:
                return best
            if found.damaged:
                names = _named(found.damaged)
                self._notes.append(f"Damaged in {house.location}, so fetched anew: {names}.")
        return best

    def _keep(self, house: Wheelhouse, packages: Sequence[Planned], brought: Brought) -> None:
        wheels = {self._wheel_of(package): package.content for package in packages}
        try:
            why = house.keep(self._key, wheels, brought.wheels)
        except StorageError as error:
            why = f"{error.message.rstrip('.')}; the next machine fetches them again"
        if why:
            self._notes.append(f"The wheels are not kept: {why}.")

    def _ended(self, failure: Failure | None, packages: Sequence[Planned]) -> Installed:
        checks = check_packages(self._request.requirements)
        if failure is None:
            # pip found nothing more to do: extras and addresses, which a version cannot tell.
            checks = tuple(
                dataclasses.replace(check, state=PackageState.PRESENT)
                if check.state is PackageState.UNKNOWN
                else check
                for check in checks
            )
        else:
            advice = _ADVICE[failure.trouble]
            if failure.trouble is Trouble.NO_NETWORK and self._platform is Platform.KAGGLE:
                advice = _KAGGLE_OFFLINE
            said = f" ({failure.said})" if failure.trouble is Trouble.REFUSED else ""
            reason = f"{failure.trouble.value}{said}"
            checks = tuple(
                check
                if check.is_satisfied
                else dataclasses.replace(check, reason=reason, advice=advice)
                for check in checks
            )
        is_new = failure is None and any(canonical(p.name) in FRAMEWORKS for p in packages)
        return Installed(checks, tuple(self._notes), has_new_framework=is_new)


def _demanding(name: str, version: str, packages: Sequence[Planned]) -> str:
    """Returns who will not have the version that is installed, "" when nobody says so."""
    for package in packages:
        if any(requirement_allows(line, name, version) is False for line in package.requires):
            return f"{package.name} {package.version}"
    return ""


def _after_changes(packages: Sequence[Planned]) -> list[str]:
    changed = [package for package in packages if package.previous is not None]
    notes = []
    if changed:
        words = [f"{p.name} {p.previous} → {p.version}" for p in changed]
        notes.append(f"Changed: {_named(words)}.")
    loaded = [package.name for package in changed if _is_imported(package.name)]
    if loaded:
        notes.append(
            f"{_named(loaded)} was imported before it changed: restart the session, then run all"
            " cells again."
        )
    return notes


def _is_imported(name: str) -> bool:
    tops = {
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if canonical(name) in {canonical(owner) for owner in owners}
    }
    return any(module in sys.modules for module in tops)


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    more = len(names) - _NAMES_SHOWN
    return shown if more <= 0 else f"{shown} and {more} more"
