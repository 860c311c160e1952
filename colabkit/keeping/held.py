"""What a volume holds of a kept folder, file by file: what the next version is made from."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Collection, Container, Iterable, Mapping, Set

from colabkit.checkpoint import Name
from colabkit.keeping.formats import WEIGHTS
from colabkit.keeping.scanning import led_to
from colabkit.keeping.units import by_unit, natural_key, patterns_by
from colabkit.keeping.version import Blob, Content, Version

_BUNDLES_MAX = 24
_DEAD_SHARE, _DEAD_BYTES = 0.6, 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """What a version holds.

    Attributes:
        contents: Every file, by its path in the folder.
        links: Where symbolic links lead.
        bundles: The sizes of what each bundle in use was packed with, the oldest first.
        blobs: What lies on the volume.
    """

    contents: Mapping[str, Content] = dataclasses.field(default_factory=dict)
    links: Mapping[str, str] = dataclasses.field(default_factory=dict)
    bundles: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    blobs: Mapping[str, Blob] = dataclasses.field(default_factory=dict)

    @property
    def revision(self) -> int:
        """Which version of the folder was the last with something new, 0 for none."""
        return max((content.revision for content in self.contents.values()), default=0)

    def without(self, lost: Set[str]) -> Held:
        """Returns it without the files that lie in some blobs."""
        left = {p: each for p, each in self.contents.items() if lost.isdisjoint(each.blobs)}
        return dataclasses.replace(self, contents=left).with_only_used()

    def with_only_used(self) -> Held:
        """Returns it without the bundles and blobs that no file lies in."""
        used = {blob for content in self.contents.values() for blob in content.blobs}
        return Held(
            self.contents,
            self.links,
            {name: inside for name, inside in self.bundles.items() if name in used},
            {name: blob for name, blob in self.blobs.items() if name in used},
        )

    def to_repack(self) -> set[str]:
        """Returns the files whose bundles are mostly dead, or too many."""
        live: dict[str, dict[str, int]] = {name: {} for name in self.bundles}
        for path, content in self.contents.items():
            if content.is_bundled:
                live[content.blobs[0]][path] = content.nbytes
        leaving = set()
        for name, inside in self.bundles.items():
            packed, alive = sum(inside.values()), sum(live[name].values())
            if packed - alive > max(_DEAD_BYTES, _DEAD_SHARE * packed):
                leaving.add(name)
        if len(self.bundles) > _BUNDLES_MAX:
            # The small half: what is large is sent again only after many others.
            smallest = sorted(live, key=lambda name: sum(live[name].values()))
            leaving |= set(smallest[: len(live) // 2])
        return {path for name in leaving for path in live[name]}

    def version(self, name: Name, saved_s: float, whole: Iterable[str]) -> Version:
        """Returns the version that holds it.

        Args:
            name: The version's name.
            saved_s: When the folder was looked at, in seconds since the epoch.
            whole: What folders that count as a whole are called.
        """
        gone = {
            path
            for inside in self.bundles.values()
            for path in inside
            if path not in self.contents or not self.contents[path].is_bundled
        }
        return Version(
            name=name,
            saved_s=saved_s,
            files={p: each for p, each in self.contents.items() if not each.is_bundled},
            bundles=tuple(self.bundles),
            gone=frozenset(gone),
            links=self.links,
            blobs=self.blobs,
            checkpoint=newest_checkpoint(self.contents, whole),
            count=len(self.contents),
            nbytes=sum(content.nbytes for content in self.contents.values()),
        )


def links_to_keep(
    links: Mapping[str, str], there: Collection[str], before: Mapping[str, str]
) -> dict[str, str]:
    """Returns links that lead to what is there; one that does not yet leads where it did before.

    Args:
        links: Where links lead now.
        there: The paths of the files of a version, or that are inputs.
        before: Where links led in the version before.
    """
    if not links:
        return {}
    places = set(there)
    for path in there:
        above = path.rpartition("/")[0]
        while above and above not in places:
            places.add(above)
            above = above.rpartition("/")[0]
    kept: dict[str, str] = {}
    for path, target in links.items():
        if led_to(path, links) in places:
            kept[path] = target
        elif path in before and led_to(path, before) in places:
            kept[path] = before[path]
    return kept


def checkpoints_in(
    contents: Mapping[str, Content], whole: Iterable[str]
) -> dict[str, Mapping[str, Content]]:
    """Returns the files of everything that is a checkpoint, the newest first."""
    units = by_unit(contents, patterns_by(contents, whole))
    found = {name: files for name, files in units.items() if is_checkpoint(name, files)}

    def key(name: str) -> tuple[object, ...]:
        return (*age_key(found[name]), natural_key(name))

    return {name: found[name] for name in sorted(found, key=key, reverse=True)}


def is_checkpoint(unit: str, files: Container[str]) -> bool:
    """Whether a unit is one a training could go on from, by its name."""
    return unit not in files or posixpath.splitext(unit)[1].lower() in WEIGHTS


def age_key(files: Mapping[str, Content]) -> tuple[int, int]:
    """Returns what is larger for what is newer: by its version, and in one by the clock.

    A clock may be put back, and that of the next machine be behind.
    """
    newest = max(content.revision for content in files.values())
    return newest, max(content.mtime_ns for content in files.values())


def newest_checkpoint(contents: Mapping[str, Content], whole: Iterable[str]) -> str:
    """Returns the name of the newest checkpoint, "" for none."""
    return next(iter(checkpoints_in(contents, whole)), "")
