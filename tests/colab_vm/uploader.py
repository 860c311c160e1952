"""The way from a machine's cache to the cloud: late, at a bandwidth, and in no helpful order."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from tests.colab_vm.rules import DriveRules, UploadOrder
from tests.colab_vm.store import CloudStore
from tests.colab_vm.tree import Node, Tree

_TICK_S = 0.01
_UNLIMITED_CHUNK_BYTES = 8 << 20


@dataclass(slots=True)
class Transfer:
    """A file on its way: the cloud has its first ``sent`` bytes."""

    changed_at: float
    nbytes: int
    sent: int = 0

    @property
    def left(self) -> int:
        return self.nbytes - self.sent


class Uploader:
    """One thread that brings every pending node to the cloud."""

    def __init__(self, tree: Tree, store: CloudStore, rules: Callable[[], DriveRules]) -> None:
        self._tree = tree
        self._store = store
        self._rules = rules
        self._transfers: dict[int, Transfer] = {}
        self._over_quota: set[int] = set()
        self.failure: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="uploader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def waiting(self) -> list[dict]:
        """Returns what is not in the cloud yet, with the reason."""
        with self._tree.lock:
            nodes = [self._tree.nodes[i] for i in sorted(self._tree.pending)]
            return [
                {
                    "path": self._tree.path_of(node),
                    "nbytes": node.size,
                    "sent": self._transfers[node.id].sent if node.id in self._transfers else 0,
                    "why": self._why(node),
                }
                for node in nodes
            ]

    def _why(self, node: Node) -> str:
        if self._tree.writers.get(node.id):
            return "open"
        if node.id in self._over_quota:
            return "over quota"
        return "uploading" if node.id in self._transfers else "waiting"

    def _work(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(_TICK_S):
            now = time.monotonic()
            rules, elapsed_s, last = self._rules(), now - last, now
            try:
                with self._tree.lock:
                    self._step(rules, elapsed_s)
            except BaseException:
                self.failure = traceback.format_exc()
                raise

    def _step(self, rules: DriveRules, elapsed_s: float) -> None:
        due = self._due(rules)
        for node in due:
            self._change_names(node)
        self._forget_stale_transfers(due)
        for node in due:
            if node.dirty and not node.deleted and node.id not in self._transfers:
                self._begin(node)
        self._send(rules, elapsed_s)

    def _due(self, rules: DriveRules) -> list[Node]:
        if rules.upload_bytes_per_s == 0:
            return []
        latest = time.time() - rules.upload_delay_s
        nodes = [self._tree.nodes[i] for i in self._tree.pending]
        due = [n for n in nodes if n.changed_at <= latest and not self._tree.writers.get(n.id)]
        # Deletions free names, and a folder is deleted after what was in it.
        return sorted(due, key=lambda n: (not n.deleted, n.changed_at))

    def _change_names(self, node: Node) -> None:
        if node.deleted:
            self._delete(node)
        elif node.is_folder and node.cloud_name is None:
            self._make_folder(node)
        elif node.moved:
            self._rename(node)

    def _delete(self, node: Node) -> None:
        where = self._tree.cloud_path(node)
        transfer = self._transfers.pop(node.id, None)
        if where is not None and node.dirty and node.cached:
            # What the file held when it was deleted is what the Trash gets.
            self._store.path(where).write_bytes(self._tree.blob(node).read_bytes())
        if where is not None and transfer and node.cloud_stamp == 0:
            self._store.path(where).unlink(missing_ok=True)
        elif where is not None:
            self._store.trash(where)
        self._tree.forget(node)

    def _make_folder(self, node: Node) -> None:
        parent = self._tree.nodes[node.parent]
        above = self._tree.cloud_path(parent)
        if above is None:
            return
        made = self._store.make_folder(above / node.name)
        node.cloud_parent, node.moved = parent.id, False
        self._tree.take_cloud_name(node, made.name)
        self._tree.save(node)

    def _rename(self, node: Node) -> None:
        old = self._tree.cloud_path(node)
        above = self._tree.cloud_path(self._tree.nodes[node.parent])
        if above is None:
            return
        if old is not None:
            new = self._store.rename(old, above / node.name)
            node.cloud_parent = node.parent
            self._tree.take_cloud_name(node, new.name)
        node.moved = False
        self._tree.save(node)

    def _forget_stale_transfers(self, due: list[Node]) -> None:
        ready = {node.id: node.changed_at for node in due if node.dirty}
        for key, transfer in list(self._transfers.items()):
            if ready.get(key) != transfer.changed_at:
                del self._transfers[key]

    def _begin(self, node: Node) -> None:
        above = self._tree.cloud_path(self._tree.nodes[node.parent])
        if above is None:
            return
        quota = self._store.quota_bytes
        if quota is not None:
            here = self._tree.cloud_path(node)
            replaced = self._store.path(here).stat().st_size if here else 0
            promised = sum(transfer.left for transfer in self._transfers.values())
            if self._store.used_bytes() - replaced + promised + node.size > quota:
                self._over_quota.add(node.id)
                return
        self._over_quota.discard(node.id)
        if node.cloud_name is None:
            made = self._store.make_object(above / node.name)
            node.cloud_parent = node.parent
            self._tree.take_cloud_name(node, made.name)
            self._tree.save(node)
        self._store.path(self._tree.cloud_path(node)).write_bytes(b"")
        self._transfers[node.id] = Transfer(node.changed_at, node.size)

    def _send(self, rules: DriveRules, elapsed_s: float) -> None:
        rate = rules.upload_bytes_per_s
        budget = _UNLIMITED_CHUNK_BYTES if rate is None else max(1, int(rate * elapsed_s))
        for key in sorted(self._transfers, key=lambda key: self._rank(key, rules)):
            transfer, node = self._transfers[key], self._tree.nodes[key]
            nbytes = min(budget, transfer.left)
            target = self._store.path(self._tree.cloud_path(node))
            with self._tree.blob(node).open("rb") as source, target.open("r+b") as sink:
                source.seek(transfer.sent)
                sink.seek(transfer.sent)
                sink.write(source.read(nbytes))
            transfer.sent += nbytes
            budget -= nbytes
            if transfer.left == 0:
                self._finish(node)
            if budget == 0:
                return

    def _rank(self, key: int, rules: DriveRules) -> float:
        transfer = self._transfers[key]
        return transfer.left if rules.upload_order is UploadOrder.SMALLEST else transfer.changed_at

    def _finish(self, node: Node) -> None:
        del self._transfers[node.id]
        stat = self._store.path(self._tree.cloud_path(node)).stat()
        node.dirty, node.cloud_stamp = False, stat.st_mtime_ns
        self._tree.save(node)
