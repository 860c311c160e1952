"""The way from a machine's cache to the cloud: late, at a bandwidth, and in no helpful order."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.colab_vm.failures import logger
from tests.colab_vm.rules import DriveRules, UploadOrder
from tests.colab_vm.store import CloudStore
from tests.colab_vm.tree import Node, Tree

_TICK_S = 0.01
_QUOTA_PERIOD_S = 0.1
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
        self._quota_asked_at = 0.0
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
                    if due := self._due(rules):
                        # What is found in the cloud may not be taken away by another machine.
                        with self._store.locked():
                            self._step(due, rules, elapsed_s)
                    else:
                        self._transfers.clear()
            except BaseException as error:
                if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                    continue  # the machine's disk is full: what waits goes on waiting
                logger.exception("the uploader failed")
                raise

    def _step(self, due: list[Node], rules: DriveRules, elapsed_s: float) -> None:
        for node in due:
            if node.id in self._tree.nodes:
                self._change_names(node)
        self._forget_stale_transfers(due)
        for node in due:
            is_file = not node.is_folder and not node.deleted
            if is_file and node.dirty and node.id not in self._transfers:
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
        elif node.moved or node.moving_from is not None:
            self._rename(node)
        elif node.is_folder:
            self._make_folder(node)

    def _delete(self, node: Node) -> None:
        if node.is_folder and self._is_in_use(node):
            return
        where = self._tree.cloud_path(node)
        if where is not None and self._store.path(where).exists():
            target = self._store.path(where)
            if node.dirty and node.cloud_stamp == 0 and not node.is_folder:
                target.unlink()  # its upload never ended: nothing was there to be trashed
            elif node.dirty and node.cached and not node.is_folder:
                # What the file held when it was deleted is what the Trash gets.
                target.write_bytes(self._tree.blob(node).read_bytes())
                self._store.trash(where)
            else:
                self._store.trash(where)
        self._transfers.pop(node.id, None)
        self._tree.forget(node)

    def _is_in_use(self, folder: Node) -> bool:
        """Whether the cloud has something in a folder that was moved elsewhere on the machine."""
        pending = (self._tree.nodes[key] for key in self._tree.pending)
        return any(node.cloud_parent == folder.id for node in pending)

    def _make_folder(self, node: Node) -> None:
        if not self._claim(node):
            return
        self._store.path(self._tree.cloud_path(node)).mkdir(exist_ok=True)
        node.dirty = False
        self._tree.save(node)

    def _claim(self, node: Node) -> bool:
        """Settles a new node's name in the cloud, and writes it down before it is taken.

        So the successor of a killed daemon goes on with that name, and makes no second object.
        """
        if node.cloud_name is not None:
            return True
        above = self._tree.cloud_path(self._tree.nodes[node.parent])
        if above is None:
            return False
        self._make_way(node)
        with self._tree.transaction(), self._store.locked():
            node.cloud_parent = node.parent
            self._tree.take_cloud_name(node, self._store.free_name(above / node.name).name)
            self._tree.save(node)
        return True

    def _make_way(self, node: Node) -> None:
        """Frees a name in the cloud that another node of this machine has already given up."""
        for holder in [self._tree.nodes[key] for key in self._tree.pending]:
            held = (holder.cloud_parent, holder.cloud_name)
            if holder is node or held != (node.parent, node.name):
                continue
            if holder.deleted:
                self._delete(holder)
            if holder.id in self._tree.nodes and (holder.moved or holder.deleted):
                self._settle_rename(holder, holder.cloud_parent, f".moving-{holder.id}")

    def _rename(self, node: Node) -> None:
        if node.moving_from is not None:
            self._finish_rename(node)
            return
        above = self._tree.cloud_path(self._tree.nodes[node.parent])
        old = self._tree.cloud_path(node)
        if above is None or old is None:
            return
        self._make_way(node)
        with self._store.locked():
            new = above / node.name
            name = node.name if new == old else self._store.free_name(new).name
            node.moved = False
            self._settle_rename(node, node.parent, name)
        self._tree.take_cloud_name(node, name)
        self._tree.save(node)

    def _settle_rename(self, node: Node, parent: int, name: str) -> None:
        """Renames in the cloud, and writes the intent down before: see ``_claim``."""
        node.moving_from = str(self._tree.cloud_path(node))
        node.cloud_parent, node.cloud_name = parent, name
        self._tree.save(node)
        self._finish_rename(node)

    def _finish_rename(self, node: Node) -> None:
        source = self._store.path(node.moving_from)
        if source.exists():
            source.rename(self._store.path(self._tree.cloud_path(node)))
        node.moving_from = None
        self._tree.save(node)

    def _forget_stale_transfers(self, due: list[Node]) -> None:
        ready = {node.id: node.changed_at for node in due if node.dirty and not node.deleted}
        for key, transfer in list(self._transfers.items()):
            if ready.get(key) != transfer.changed_at:
                del self._transfers[key]

    def _begin(self, node: Node) -> None:
        now = time.monotonic()
        if node.id in self._over_quota and now < self._quota_asked_at + _QUOTA_PERIOD_S:
            return
        if not self._has_room(node):
            self._quota_asked_at = now
            self._over_quota.add(node.id)
            return
        self._over_quota.discard(node.id)
        if not self._claim(node):
            return
        target = self._store.path(self._tree.cloud_path(node))
        if not target.parent.exists():
            return  # taken away by another machine, which the next listing finds out
        target.write_bytes(b"")
        self._transfers[node.id] = Transfer(node.changed_at, node.size)

    def _has_room(self, node: Node) -> bool:
        quota = self._store.quota_bytes
        if quota is None:
            return True
        here = self._tree.cloud_path(node)
        target = self._store.path(here) if here is not None else None
        replaced = target.stat().st_size if target is not None and target.exists() else 0
        promised = sum(transfer.left for transfer in self._transfers.values())
        return self._store.used_bytes() - replaced + promised + node.size <= quota

    def _send(self, rules: DriveRules, elapsed_s: float) -> None:
        rate = rules.upload_bytes_per_s
        budget = _UNLIMITED_CHUNK_BYTES if rate is None else max(1, int(rate * elapsed_s))
        for key in sorted(self._transfers, key=lambda key: self._rank(key, rules)):
            transfer, node = self._transfers[key], self._tree.nodes[key]
            nbytes = min(budget, transfer.left)
            target = self._store.path(self._tree.cloud_path(node))
            if not target.exists():
                # Deleted by another machine in the middle: our bytes are sent as a new object.
                del self._transfers[key]
                node.cloud_name, node.cloud_stamp = None, 0
                self._tree.save(node)
                continue
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
