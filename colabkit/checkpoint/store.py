"""The checkpoints of one run folder: listed, read with every byte verified, committed, pruned."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

from colabkit.checkpoint.incremental import ShardPlan, plan_shards
from colabkit.checkpoint.info import CheckpointInfo, Draft, LoadedCheckpoint
from colabkit.checkpoint.manifest import (
    NOTED,
    SIZE_MAX,
    Manifest,
    Name,
    ShardEntry,
    TensorEntry,
    corrupt,
    require_whole,
)
from colabkit.checkpoint.parts import Part
from colabkit.checkpoint.pieces import Cut, Cutter, Wholes
from colabkit.checkpoint.retention import superfluous
from colabkit.checkpoint.safetensors_file import header_of, merged, read_shard
from colabkit.checkpoint.skeletons import decode
from colabkit.checkpoint.small_tensors import Packing
from colabkit.checkpoint.tensors import TensorBackend, TensorSpec, rebuild_array
from colabkit.errors import CheckpointCorruptError, StorageError
from colabkit.storage import Bytes, Uploading, Volume, hash_of, joined

_MANIFESTS, _SHARDS = "checkpoints", "shards"
_OURS = re.compile(r".+-(a\d{2,}-g\d{4,}-\d{8,}-[0-9a-f]{8})\.safetensors")


class CheckpointStore:
    """The checkpoints on one volume.

    Args:
        volume: The run folder.
        keep: How many of the newest to keep; 2 at least.
    """

    def __init__(self, volume: Volume, *, keep: int = 2) -> None:
        self.volume = volume
        self._keep = keep
        self._manifests: dict[str, Manifest] = {}

    # Reading.

    def names(self) -> list[Name]:
        """Returns the names of the checkpoints there, newest first, from one listing."""
        return _names_in(self.volume.list(_MANIFESTS))

    def infos(self) -> list[CheckpointInfo]:
        """Returns the checkpoints there, newest first; unreadable ones carry ``problem``."""
        infos = []
        sizes = self.volume.list(_MANIFESTS)
        for name in self.names():
            # An empty one is on its way out: it was emptied, and not yet removed.
            if not sizes.get(f"{name}.json"):
                continue
            try:
                infos.append(self._info(self.manifest(name)))
            except (CheckpointCorruptError, StorageError) as error:
                infos.append(CheckpointInfo(name=str(name), problem=str(error)))
        return infos

    def manifest(self, name: Name) -> Manifest:
        """Returns a checkpoint's manifest.

        Raises:
            CheckpointCorruptError: It is not what was written.
        """
        known = self._manifests.get(str(name))
        if known is not None:
            return known
        path = f"{_MANIFESTS}/{name}.json"
        if self.volume.list(_MANIFESTS).get(f"{name}.json", 0) > SIZE_MAX:
            raise corrupt(path, "a manifest of impossible size")
        manifest = Manifest.from_bytes(self.volume.read(path), path)
        if manifest.name != name:
            raise corrupt(path, f"it calls itself {manifest.name}")
        self._manifests[str(name)] = manifest
        return manifest

    def load(
        self, name: Name | str, backend: TensorBackend, cutter: Cutter | None = None
    ) -> LoadedCheckpoint:
        """Reads a checkpoint and verifies every byte.

        Args:
            name: The checkpoint's name.
            backend: The framework's tensors.
            cutter: Says what is wanted of tensors in pieces: files without any of it are not read.

        Raises:
            CheckpointCorruptError: A file is missing or is not what was written.
        """
        parsed = Name.parse(name) if isinstance(name, str) else name
        if parsed is None:
            raise corrupt(str(name), "no checkpoint's name")
        manifest = self.manifest(parsed)
        cuts = manifest.cuts(cutter) if cutter is not None else {}
        tensors = self._read_tensors(manifest, cuts)

        def leaf_of(section: str) -> Callable[[str, str], Any]:
            def leaf(kind: str, key: str) -> Any:
                spec, data = tensors[section, key]
                if kind == "array":
                    return rebuild_array(spec, data)
                if kind == "rows of array":
                    return [row.copy() for row in rebuild_array(spec, data)]
                rebuilt = backend.rebuild(spec, data)
                if kind == "rows of tensor":
                    return backend.part(rebuilt) if isinstance(backend, Packing) else list(rebuilt)
                cut = cuts.get((section, key))
                return rebuilt if cut is None else cut.made(rebuilt)

            return leaf

        sections = {
            section: decode(skeleton, leaf_of(section))
            for section, skeleton in manifest.skeletons.items()
        }
        if manifest.noted:
            sections[NOTED] = manifest.noted
        return LoadedCheckpoint(self._info(manifest), manifest.facts, sections)

    def verify(self, name: str) -> str:
        """Reads every byte of a checkpoint; returns what is wrong with it, "" for nothing."""
        parsed = Name.parse(name)
        try:
            if parsed is not None:
                self._read_tensors(self.manifest(parsed))
        except (CheckpointCorruptError, StorageError) as error:
            return str(error)
        return ""

    def _read_tensors(
        self, manifest: Manifest, cuts: Mapping[tuple[str, str], Cut] = MappingProxyType({})
    ) -> dict[tuple[str, str], tuple[TensorSpec, Bytes]]:
        sizes = self.volume.list(_SHARDS)
        for name, shard in manifest.shards.items():
            if sizes.get(name) != shard.size:
                there = f"{sizes[name]} bytes" if name in sizes else "missing"
                reason = f"{there} instead of {shard.size} bytes"
                raise corrupt(_shard_path(name), reason)
        in_file: dict[str, list[TensorEntry]] = {name: [] for name in manifest.shards}
        for entry in manifest.tensors:
            in_file[entry.shard].append(entry)
        tensors, wholes = {}, Wholes(cuts, manifest.in_pieces())
        for name, shard in manifest.shards.items():
            if in_file[name] and not any(each.is_wanted(cuts) for each in in_file[name]):
                continue
            found = self._read_shard(name, shard)
            for entry in in_file[name]:
                spec, data = found.get(entry.key, (None, None))
                if spec != entry.spec or data is None:
                    reason = f"{entry.key!r} is not in it"
                    raise corrupt(_shard_path(name), reason)
                if entry.box is None:
                    tensors[entry.place] = (spec, data)
                else:
                    wholes.put(entry.place, spec, entry.box, data)
        return tensors | wholes.tensors

    def _read_shard(self, name: str, shard: ShardEntry) -> dict[str, tuple[TensorSpec, Bytes]]:
        path = _shard_path(name)
        data = self.volume.read(path)
        if len(data) != shard.size or hash_of(data) != shard.hash:
            raise corrupt(path, "its bytes are not those that were written")
        return read_shard(data, path)

    def _info(self, manifest: Manifest) -> CheckpointInfo:
        facts = manifest.facts
        weights = {e.shard for e in manifest.tensors if e.section in manifest.weights}
        return CheckpointInfo(
            name=str(manifest.name),
            step=facts.step,
            epoch=facts.epoch,
            batch=facts.batch,
            saved_at=manifest.saved_at,
            nbytes=sum(entry.spec.nbytes for entry in manifest.tensors),
            metrics=facts.metrics,
            is_best=facts.is_best,
            is_finite=facts.is_finite,
            phase=facts.phase,
            weights_files=tuple(
                joined(self.volume.location, _shard_path(shard)) for shard in sorted(weights)
            ),
            hashes=manifest.hashes()
            | {
                f"{s}.{key}": digest
                for s, each in manifest.noted.items()
                for key, digest in each.items()
            },
        )

    # Writing.

    def commit(
        self,
        name: Name,
        draft: Draft,
        *,
        previous: Manifest | None,
        check: Callable[[], None],
        parts: Callable[[], Sequence[Part]] = tuple,
    ) -> tuple[Manifest, int]:
        """Writes the files, then the manifest.

        Args:
            name: The checkpoint's name.
            draft: What to write.
            previous: The checkpoint whose files may be referred to.
            check: Called right before the manifest; raises when this session may not write.
            parts: Called before that; waits for what other processes have written of it.

        Returns:
            The manifest, and how many bytes were written.
        """
        plan = self._plan(draft, previous)
        written: list[str] = []
        try:
            entries, shards = self._write_shards(name, draft, plan, written)
            for entry in plan.references:
                entries.append(entry)
                assert previous is not None  # noqa: S101  # references come from it
                shards[entry.shard] = previous.shards[entry.shard]
            facts = draft.facts
            for part in parts():
                entries += part.tensors
                shards.update(part.shards)
                is_finite = facts.is_finite and part.is_finite
                facts = dataclasses.replace(facts, is_finite=is_finite)
            require_whole(entries, self.volume.location)
            manifest = Manifest(
                name=name,
                saved_at=datetime.datetime.now(datetime.UTC),
                facts=facts,
                skeletons=draft.skeletons,
                weights=draft.weights,
                tensors=tuple(entries),
                shards=shards,
                noted=draft.noted,
            )
            check()
            content = manifest.to_bytes()
            self.volume.write(f"{_MANIFESTS}/{name}.json", [content])
        except BaseException:
            self.remove(written)
            raise
        self._manifests[str(name)] = manifest
        return manifest, len(content) + sum(shards[shard].size for shard in written)

    def write_part(
        self, name: Name, draft: Draft, *, rank: int, previous: Name | None = None
    ) -> tuple[list[TensorEntry], dict[str, ShardEntry]]:
        """Writes what one of several processes has of a checkpoint that another publishes.

        Args:
            name: The checkpoint's name.
            draft: What to write.
            rank: Number of the process.
            previous: The checkpoint whose files may be referred to.

        Returns:
            The tensors, and the files that they lie in; these are durable by now.
        """
        known: Manifest | None = None
        if previous is not None:
            with contextlib.suppress(CheckpointCorruptError, StorageError):
                known = self.manifest(previous)
            self._manifests.clear()
        plan = self._plan(draft, known)
        files = {f"{label}-r{rank:04d}": places for label, places in plan.files.items()}
        written: list[str] = []
        try:
            entries, shards = self._write_shards(name, draft, ShardPlan((), files), written)
        except BaseException:
            self.remove(written)
            raise
        if known is not None:
            shards |= {entry.shard: known.shards[entry.shard] for entry in plan.references}
        return [*entries, *plan.references], shards

    def remove(self, shards: Collection[str]) -> None:
        """Removes files that no checkpoint names, where that is possible."""
        with contextlib.suppress(StorageError):
            self.volume.delete([_shard_path(shard) for shard in shards])

    def _plan(self, draft: Draft, previous: Manifest | None) -> ShardPlan:
        """Refers to no file that somebody has removed meanwhile."""
        plan = plan_shards(draft.tensors, previous)
        if previous is None or not plan.references:
            return plan
        wanted = {entry.shard: previous.shards[entry.shard] for entry in plan.references}
        return plan_shards(draft.tensors, None) if self.lacking(wanted) else plan

    def _write_shards(
        self, name: Name, draft: Draft, plan: ShardPlan, written: list[str]
    ) -> tuple[list[TensorEntry], dict[str, ShardEntry]]:
        entries, shards = [], {}
        for label, places in plan.files.items():
            shard = f"{label}-{name}.safetensors"
            tensors = {draft.tensors[place].key: draft.tensors[place].spec for place in places}
            parts = [header_of(tensors), *merged(draft.tensors[place].view for place in places)]
            with ThreadPoolExecutor(1, "colabkit-hash") as hasher:
                digest = hasher.submit(hash_of, *parts)
                written.append(shard)
                self.volume.write(_shard_path(shard), parts)
                shards[shard] = ShardEntry(sum(map(len, parts)), digest.result())
            for place in places:
                t = draft.tensors[place]
                entries.append(TensorEntry(*t.place, t.spec, t.hash, shard, t.box))
        return entries, shards

    def copy_from(
        self, other: CheckpointStore, manifest: Manifest, check: Callable[[], None]
    ) -> int:
        """Copies a checkpoint from another store; returns the bytes written."""
        count = 0
        for shard in self.lacking(manifest.shards):
            data = other.volume.read(_shard_path(shard))
            self.volume.write(_shard_path(shard), [data])
            count += len(data)
        check()
        content = manifest.to_bytes()
        self.volume.write(f"{_MANIFESTS}/{manifest.name}.json", [content])
        self._manifests[str(manifest.name)] = manifest
        return count + len(content)

    def is_confirmed(self, manifest: Manifest) -> bool | None:
        """Returns whether a checkpoint is uploaded, None where the volume does not say."""
        if not isinstance(self.volume, Uploading):
            return True
        shards = [_shard_path(shard) for shard in manifest.shards]
        return self.volume.confirmed([*shards, f"{_MANIFESTS}/{manifest.name}.json"])

    def holds(self, manifest: Manifest) -> bool:
        """Whether all files of a checkpoint are there and have their sizes."""
        is_there = not self.lacking(manifest.shards)
        return is_there and bool(self.volume.list(_MANIFESTS).get(f"{manifest.name}.json"))

    def lacking(self, shards: Mapping[str, ShardEntry]) -> list[str]:
        """Returns which of some files are not there in their sizes."""
        sizes = self.volume.list(_SHARDS)
        return [name for name, shard in shards.items() if sizes.get(name) != shard.size]

    def prune(
        self, attempt: int, trusted: set[str], *, needed: Collection[str] = frozenset()
    ) -> None:
        """Removes checkpoints of one attempt that are superfluous, manifests first.

        Args:
            attempt: Other attempts are not touched.
            trusted: Names of checkpoints known to be whole; only these count as kept.
            needed: Names of checkpoints that must stay whatever their age.
        """
        found = self.volume.list(_MANIFESTS)
        names = _names_in(found)
        mine = [n for n in names if n.attempt == attempt]
        known = (self._readable(n) for n in mine if str(n) in trusted)
        whole = [m for m in known if m is not None]
        going = superfluous(whole, keep=self._keep)
        emptied: set[str] = set()
        if whole:
            oldest_kept = min((m.name for m in whole if m not in going), default=mine[0])
            unproven = [n for n in mine if str(n) not in trusted and n < oldest_kept]
            # A kill between the emptying and the removal leaves these, which nobody can read.
            emptied = {str(n) for n in unproven if not found[f"{n}.json"]}
            old = [m for m in map(self._readable, unproven) if m is not None]
            kept = [m for m in whole if m not in going]
            # What was kept is newer: of the older ones as many stay as are missing.
            going += superfluous([*kept, *old], keep=self._keep)
        going = self._without_stood_on([m for m in going if str(m.name) not in needed], names)
        gone = {str(m.name) for m in going} | emptied
        if not gone:
            return
        staying = [self._readable(n) for n in names if str(n) not in gone]
        self.volume.delete([f"{_MANIFESTS}/{name}.json" for name in gone])
        for name in gone:
            self._manifests.pop(name, None)
        used = {shard for m in staying if m is not None for shard in m.shards}
        dead = {shard for m in going for shard in m.shards} - used
        self.volume.delete([_shard_path(shard) for shard in sorted(dead)])

    def _without_stood_on(self, going: list[Manifest], names: list[Name]) -> list[Manifest]:
        """Leaves out what a checkpoint that stays goes on from."""
        leaving = {m.name for m in going}
        staying = [self._readable(name) for name in names if name not in leaving]
        stood_on = {each for m in staying if m is not None for each in m.facts.stands_on}
        return [m for m in going if str(m.name) not in stood_on]

    def sweep(self, *, outdone_by: Name | None = None) -> None:
        """Removes files of ours that no checkpoint names: what a killed save left behind.

        Args:
            outdone_by: A checkpoint that is there: only files go whose own checkpoint, begun
                before it, can come no more. None when nobody else can be writing here.
        """
        # Looked at before the manifests: a file that is there by then may get its manifest yet.
        there = self.volume.list(_SHARDS)
        try:
            manifests = [self._readable(name) for name in self.names()]
        except StorageError:
            return
        if None in manifests:
            return
        used = {shard for m in manifests if m is not None for shard in m.shards}
        dead = [shard for shard in there if shard not in used and _is_dead(shard, outdone_by)]
        self.volume.delete([_shard_path(shard) for shard in dead])

    def _readable(self, name: Name) -> Manifest | None:
        try:
            return self.manifest(name)
        except CheckpointCorruptError:
            return None


def _names_in(found: Iterable[str]) -> list[Name]:
    stems = (name.removesuffix(".json") for name in found if name.endswith(".json"))
    return sorted((n for n in map(Name.parse, stems) if n is not None), reverse=True)


def _shard_path(name: str) -> str:
    return f"{_SHARDS}/{name}"


def _is_dead(shard: str, outdone_by: Name | None) -> bool:
    found = _OURS.fullmatch(shard)
    name = Name.parse(found[1]) if found else None
    if name is None or outdone_by is None:
        return name is not None
    # Sessions that took the same generation do not know of each other yet.
    is_same_session = (name.generation, name.owner) == (outdone_by.generation, outdone_by.owner)
    if is_same_session:
        return name.sequence < outdone_by.sequence
    return name.generation < outdone_by.generation
