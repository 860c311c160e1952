"""What a machine believes about its Drive: the cloud as last seen, and its own changes to it.

The tree lives beside the cached bytes, in a database on the machine's disk, so that a new mount
of the same machine can go on where a killed one stopped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tests.colab_vm.faults import fail
from tests.colab_vm.store import CloudStore, numbered

ROOT_ID = 1
ROOT_NAMES = ("MyDrive", "My Drive")


@dataclass(slots=True)
class Node:
    """A file or folder, under the name the machine shows and the one the cloud has."""

    id: int
    parent: int
    name: str
    is_folder: bool
    size: int = 0
    mtime: float = 0.0
    cloud_parent: int | None = None
    cloud_name: str | None = None
    cloud_stamp: int = 0
    moving_from: str | None = None
    cached: bool = False
    dirty: bool = False
    moved: bool = False
    deleted: bool = False
    changed_at: float = 0.0

    @property
    def is_pending(self) -> bool:
        """Whether the cloud has yet to hear of a change."""
        return self.dirty or self.moved or self.deleted or self.moving_from is not None


_FIELDS = tuple(f.name for f in dataclasses.fields(Node))


class Tree:
    """The nodes by id and by path. Every method wants ``lock`` held, which is re-entrant."""

    def __init__(self, cache: Path, store: CloudStore) -> None:
        self.lock = threading.RLock()
        self.store = store
        self.blobs = cache / "content"
        self.blobs.mkdir(parents=True, exist_ok=True)
        self.nodes: dict[int, Node] = {}
        self.children: dict[int, dict[str, int]] = {}
        self.pending: set[int] = set()
        self.writers: dict[int, int] = {}
        self._seen_at: dict[int, float] = {}
        self._database = sqlite3.connect(
            cache / "metadata_sqlite_db", check_same_thread=False, isolation_level=None
        )
        self._database.execute("PRAGMA journal_mode=WAL")
        # Only this process may be killed, never the machine's kernel: no need to wait for a disk.
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.execute(
            f"CREATE TABLE IF NOT EXISTS nodes ({','.join(_FIELDS)}, PRIMARY KEY (id))"
        )
        self._load()

    def _load(self) -> None:
        root = Node(ROOT_ID, 0, ROOT_NAMES[0], is_folder=True, cloud_name=".")
        rows = self._database.execute(f"SELECT {','.join(_FIELDS)} FROM nodes").fetchall()
        self.nodes = {ROOT_ID: root} | {row[0]: Node(*row) for row in rows}
        for node in self.nodes.values():
            if node.is_folder:
                self.children.setdefault(node.id, {})
            if node.is_pending:
                self.pending.add(node.id)
            if node.dirty and self.blob(node).exists():
                node.size = self.blob(node).stat().st_size
            if node.id != ROOT_ID and not node.deleted:
                self.children.setdefault(node.parent, {})[node.name] = node.id
        self._next_id = max(self.nodes) + 1

    def close(self) -> None:
        with self.lock:
            self._database.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Lets a killed daemon's successor see all of several changes, or none."""
        self._database.execute("BEGIN")
        try:
            yield
        finally:
            self._database.execute("COMMIT")

    def save(self, node: Node) -> None:
        """Writes a node down, and whether the uploader has to look at it."""
        if node.id not in self.nodes:
            return  # forgotten while somebody had it open: it is not to come back
        marks = ",".join("?" * len(_FIELDS))
        # astuple copies deeply, for nothing: all fields are plain.
        values = [getattr(node, name) for name in _FIELDS]
        self._write(f"INSERT OR REPLACE INTO nodes VALUES ({marks})", values)
        (self.pending.add if node.is_pending else self.pending.discard)(node.id)

    def _write(self, statement: str, values: Sequence[object]) -> None:
        try:
            self._database.execute(statement, values)
        except sqlite3.OperationalError as error:
            if "full" in str(error):
                raise fail(errno.ENOSPC, "the machine's disk") from error
            raise

    def forget(self, node: Node) -> None:
        """Drops a node that neither the machine nor the cloud has any more."""
        self._write("DELETE FROM nodes WHERE id = ?", (node.id,))
        siblings = self.children.get(node.parent, {})
        if siblings.get(node.name) == node.id:
            del siblings[node.name]
        self.pending.discard(node.id)
        self.nodes.pop(node.id, None)
        self.blob(node).unlink(missing_ok=True)

    def blob(self, node: Node) -> Path:
        """Returns where a file's cached bytes lie."""
        return self.blobs / str(node.id)

    def add(self, parent: Node, name: str, *, is_folder: bool) -> Node:
        node = Node(self._next_id, parent.id, name, is_folder, mtime=time.time())
        self._next_id += 1
        self.nodes[node.id] = node
        self.children[parent.id][name] = node.id
        if is_folder:
            self.children[node.id] = {}
        return node

    def cloud_path(self, node: Node) -> PurePosixPath | None:
        """Returns where the cloud has a node; None when it has it nowhere."""
        if node.id == ROOT_ID:
            return PurePosixPath()
        if node.cloud_name is None or node.cloud_parent not in self.nodes:
            return None
        parent = self.cloud_path(self.nodes[node.cloud_parent])
        return None if parent is None else parent / node.cloud_name

    def path_of(self, node: Node) -> str:
        """Returns a node's path below the Drive's root, as the machine shows it."""
        if node.id == ROOT_ID:
            return ""
        above = self.nodes.get(node.parent)
        return f"{self.path_of(above)}/{node.name}".lstrip("/") if above else node.name

    def find(self, path: str, *, view_delay_s: float) -> Node:
        """Returns the node at a path below the mountpoint; FileNotFoundError when there is none."""
        parts = PurePosixPath(path).parts[1:]
        if not parts or parts[0] not in ROOT_NAMES:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        node = self.nodes[ROOT_ID]
        for part in parts[1:]:
            self.refresh(node, view_delay_s=view_delay_s)
            found = self.children.get(node.id, {}).get(part)
            if found is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            node = self.nodes[found]
        return node

    def refresh(self, folder: Node, *, view_delay_s: float) -> None:
        """Takes over what other machines did to a folder, unless that was done just now."""
        now = time.monotonic()
        where = self.cloud_path(folder)
        if where is None or now - self._seen_at.get(folder.id, -1e9) < view_delay_s:
            return
        self._seen_at[folder.id] = now
        try:
            found = list(os.scandir(self.store.path(where)))
        except FileNotFoundError:
            return
        entries = {}
        for entry in found:
            with contextlib.suppress(FileNotFoundError):  # another machine took it away just now
                entries[entry.name] = entry.stat()
        known = {node.cloud_name: node for node in self._in_cloud(folder)}
        for name, node in known.items():
            if name not in entries:
                self._vanished(node)
            elif not node.is_pending and not node.is_folder:
                self._maybe_changed(node, entries[name])
        for name, facts in entries.items():
            if name not in known:
                self._appeared(folder, name, facts)

    def _in_cloud(self, folder: Node) -> Iterator[Node]:
        ids = set(self.children[folder.id].values()) | self.pending
        nodes = [self.nodes[i] for i in ids]
        return (n for n in nodes if n.cloud_parent == folder.id and n.cloud_name is not None)

    def _vanished(self, node: Node) -> None:
        if node.is_pending or self.writers.get(node.id):
            return
        for child in list(self.children.get(node.id, {}).values()):
            self._vanished(self.nodes[child])
        if self.children.get(node.id):
            # Something in it is still to be uploaded: the folder is made anew.
            node.cloud_name, node.dirty = None, True
            self.save(node)
        else:
            self.forget(node)

    def _maybe_changed(self, node: Node, now: os.stat_result) -> None:
        if now.st_mtime_ns != node.cloud_stamp or now.st_size != node.size:
            node.size, node.mtime, node.cloud_stamp = now.st_size, now.st_mtime, now.st_mtime_ns
            node.cached = False
            self.save(node)

    def _appeared(self, folder: Node, name: str, facts: os.stat_result) -> None:
        number = 0
        while numbered(name, number) in self.children[folder.id]:
            number += 1
        node = self.add(folder, numbered(name, number), is_folder=stat.S_ISDIR(facts.st_mode))
        node.cloud_parent, node.cloud_name = folder.id, name
        node.size = 0 if node.is_folder else facts.st_size
        node.mtime, node.cloud_stamp = facts.st_mtime, facts.st_mtime_ns
        self.save(node)

    def take_cloud_name(self, node: Node, name: str) -> None:
        """Shows a node under the name the cloud gave it; who had that name takes the old one."""
        node.cloud_name = name
        if node.name == name or node.deleted:
            return
        siblings = self.children[node.parent]
        other = siblings.pop(name, None)
        del siblings[node.name]
        if other is not None:
            siblings[node.name] = other
            self.nodes[other].name = node.name
            self.save(self.nodes[other])
        siblings[name], node.name = node.id, name
