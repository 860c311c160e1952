"""Drive as a FUSE file system: what a program on a machine sees under the mountpoint."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

import mfusepy

from tests.colab_vm.faults import LiveRules, fail
from tests.colab_vm.rules import Attributes
from tests.colab_vm.store import CloudStore, identity, md5_of
from tests.colab_vm.tree import ROOT_NAMES, Node, Tree

_TOP = ("MyDrive", ".shortcut-targets-by-id", ".Trash-0")
_NO_SUCH_ATTRIBUTE = errno.ENODATA


@dataclass(frozen=True)
class Handle:
    """An open file; its number is the descriptor of its bytes in the cache."""

    node: Node
    writes: bool


def operation(op: str) -> Callable:
    """Makes a method a call that takes time, may fail by rule, and holds the tree's lock."""

    def decorate(method: Callable) -> Callable:
        @functools.wraps(method)
        def call(self: DriveFiles, path: str, *arguments: object) -> object:
            self.rules.apply(op, path)
            with self.tree.lock:
                return method(self, path, *arguments)

        return call

    return decorate


class DriveFiles(mfusepy.Operations):
    """The calls of a program, answered from the tree and the cache."""

    use_ns = True

    def __init__(
        self, tree: Tree, store: CloudStore, rules: LiveRules, *, on_start: Callable[[], None]
    ) -> None:
        self.tree = tree
        self.store = store
        self.rules = rules
        self._on_start = on_start
        self._handles: dict[int, Handle] = {}
        self._fetching = threading.Lock()
        self._unread: dict[int, tuple[int, OSError]] = {}

    def init(self, path: str) -> None:
        self._on_start()

    def _find(self, path: str) -> Node:
        return self.tree.find(path, view_delay_s=self.rules().view_delay_s)

    def _place(self, path: str) -> Node:
        """Returns the folder that a new entry goes into."""
        if len(PurePosixPath(path).parts) < 3:
            raise fail(errno.EOPNOTSUPP, path)
        folder = self._find(str(PurePosixPath(path).parent))
        self.tree.refresh(folder, view_delay_s=self.rules().view_delay_s)
        if len(self.tree.children[folder.id]) >= self.rules().entries_per_folder:
            raise fail(errno.EIO, path)
        return folder

    @operation("stat")
    def getattr(self, path: str, fh: int | None = None) -> dict:
        top = path.strip("/")
        if top not in ROOT_NAMES and top in (*_TOP, ""):
            return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2, **_owner()}
        handle = self._handles.get(fh) if fh is not None else None
        node = handle.node if handle else self._find(path)
        mode = stat.S_IFDIR | 0o700 if node.is_folder else stat.S_IFREG | 0o600
        when = int(node.mtime * 1e9)
        return {
            "st_mode": mode,
            "st_nlink": 2 if node.is_folder else 1,
            "st_size": 4096 if node.is_folder else node.size,
            "st_blocks": (node.size + 511) // 512,
            "st_ino": node.id,
            "st_mtime": when,
            "st_ctime": when,
            "st_atime": when,
            **_owner(),
        }

    @operation("listdir")
    def opendir(self, path: str) -> int:
        # Here, because the C library takes an errno 2 of readdir for the end of the folder.
        return 0

    @operation("readdir")
    def readdir(self, path: str, fh: int) -> list[str]:
        if path == "/":
            return [".", "..", *_TOP]
        if path.strip("/") in _TOP and path.strip("/") not in ROOT_NAMES:
            return [".", ".."]
        folder = self._find(path)
        self.tree.refresh(folder, view_delay_s=self.rules().view_delay_s)
        names = list(self.tree.children[folder.id])
        if len(names) > self.rules().entries_per_folder:
            raise fail(errno.EIO, path)
        return [".", "..", *names]

    @operation("create")
    def create(self, path: str, mode: int, fi: int | None = None) -> int:
        folder = self._place(path)
        node = self.tree.add(folder, PurePosixPath(path).name, is_folder=False)
        node.cached = True
        self.tree.blob(node).touch()
        self._changed(node)
        return self._open(node, writes=True)

    def open(self, path: str, flags: int) -> int:
        self.rules.apply("open", path)
        with self.tree.lock:
            node = self._find(path)
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR))
        if flags & os.O_TRUNC and writes:
            with self.tree.lock:
                self._cut(node, 0)
        else:
            self._fetch(node)
        with self.tree.lock:
            return self._open(node, writes=writes)

    def _open(self, node: Node, *, writes: bool) -> int:
        fd = os.open(self.tree.blob(node), os.O_RDWR)
        self._handles[fd] = Handle(node, writes)
        if writes:
            self.tree.writers[node.id] = self.tree.writers.get(node.id, 0) + 1
        return fd

    def _fetch(self, node: Node) -> None:
        """Brings a file's bytes from the cloud, at the bandwidth there is."""
        with self._fetching:
            with self.tree.lock:
                where = self.tree.cloud_path(node)
                if node.cached or where is None:
                    return
                blob, source = self.tree.blob(node), self.store.path(where)
            rate = self.rules().download_bytes_per_s
            with source.open("rb") as cloud, blob.open("wb") as cache:
                if rate:
                    time.sleep(node.size / rate)
                shutil.copyfileobj(cloud, cache, 8 << 20)
            with self.tree.lock:
                node.cached, node.size = True, blob.stat().st_size
                self.tree.save(node)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        failed_at, failure = self._unread.pop(fh, (-1, None))
        if failed_at == offset and failure is not None:
            # The kernel asks again after a failed read-ahead: one read of the program fails once.
            raise failure
        try:
            self.rules.apply("read", path)
        except OSError as error:
            self._unread[fh] = (offset, error)
            raise
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self.rules.apply("write", path)
        written = os.pwrite(fh, data, offset)
        node = self._handles[fh].node
        with self.tree.lock:
            node.size = max(node.size, offset + written)
            if not node.dirty or not node.cached:
                self._changed(node)
            node.mtime = node.changed_at = time.time()
        return written

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        self.rules.apply("truncate", path)
        with self.tree.lock:
            node = self._handles[fh].node if fh in self._handles else self._find(path)
        if length:
            self._fetch(node)
        with self.tree.lock:
            self._cut(node, length)

    def _cut(self, node: Node, length: int) -> None:
        blob = self.tree.blob(node)
        blob.touch()
        os.truncate(blob, length)
        node.size, node.cached = length, True
        self._changed(node)

    def _changed(self, node: Node) -> None:
        node.mtime = node.changed_at = time.time()
        node.dirty = True
        self.tree.save(node)

    @operation("close")
    def flush(self, path: str, fh: int) -> None:
        return None

    @operation("fsync")
    def fsync(self, path: str, datasync: int, fh: int) -> None:
        # Local only, as on Drive: nothing is said about the cloud.
        return None

    def release(self, path: str, fh: int) -> None:
        with self.tree.lock:
            handle = self._handles.pop(fh)
            os.close(fh)
            node = handle.node
            if handle.writes:
                self.tree.writers[node.id] -= 1
                if node.dirty and not node.deleted:
                    node.changed_at = time.time()
                    self.tree.save(node)

    @operation("mkdir")
    def mkdir(self, path: str, mode: int) -> None:
        folder = self._place(path)
        self._changed(self.tree.add(folder, PurePosixPath(path).name, is_folder=True))

    @operation("unlink")
    def unlink(self, path: str) -> None:
        self._remove(self._find(path))

    @operation("rmdir")
    def rmdir(self, path: str) -> None:
        node = self._find(path)
        self.tree.refresh(node, view_delay_s=self.rules().view_delay_s)
        if self.tree.children[node.id]:
            raise fail(errno.ENOTEMPTY, path)
        self._remove(node)

    def _remove(self, node: Node) -> None:
        if node.cloud_name is None:
            self.tree.forget(node)
            return
        del self.tree.children[node.parent][node.name]
        node.deleted, node.changed_at = True, time.time()
        self.tree.save(node)

    @operation("rename")
    def rename(self, old: str, new: str) -> None:
        node = self._find(old)
        name = PurePosixPath(new).name
        folder = self._find(str(PurePosixPath(new).parent))
        replaced = self.tree.children[folder.id].get(name)
        if replaced == node.id:
            return
        if replaced is None:
            self._place(new)
        elif self.tree.children.get(replaced):
            raise fail(errno.ENOTEMPTY, new)
        with self.tree.transaction():
            if replaced is not None:
                self._remove(self.tree.nodes[replaced])
            del self.tree.children[node.parent][node.name]
            node.parent, node.name = folder.id, name
            self.tree.children[folder.id][name] = node.id
            node.moved = node.cloud_name is not None
            node.changed_at = time.time()
            self.tree.save(node)

    @operation("symlink")
    def symlink(self, target: str, source: str) -> None:
        raise fail(errno.EOPNOTSUPP, target)

    @operation("link")
    def link(self, target: str, source: str) -> None:
        raise fail(errno.ENOSYS, target)

    @operation("chmod")
    def chmod(self, path: str, mode: int) -> None:
        self._find(path)

    @operation("chown")
    def chown(self, path: str, uid: int, gid: int) -> None:
        self._find(path)

    @operation("utimens")
    def utimens(self, path: str, times: tuple[int, int] | None = None) -> None:
        node = self._find(path)
        node.mtime = times[1] / 1e9 if times else time.time()

    def statfs(self, path: str) -> dict[str, int]:
        disk = os.statvfs(self.tree.blobs)
        names = ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree")
        return {name: getattr(disk, name) for name in names} | {"f_namemax": 255}

    @operation("listxattr")
    def listxattr(self, path: str) -> list[str]:
        return []

    @operation("getxattr")
    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        answers = self.rules().attributes
        if answers is Attributes.NONE:
            raise fail(errno.EOPNOTSUPP, path)
        node = self._find(path)
        where = self.tree.cloud_path(node)
        if name == "user.drive.id":
            done = where is not None and not (node.dirty and node.cloud_stamp == 0)
            return identity(self.store.path(where)).encode() if done else b"local-%d" % node.id
        if answers is Attributes.ALL and name == "user.drive.uncommitted":
            return b"1" if node.is_pending else b"0"
        is_whole = where is not None and not node.dirty and not node.is_folder
        if answers is Attributes.ALL and name == "user.drive.md5" and is_whole:
            return md5_of(self.store.path(where)).encode()
        raise fail(_NO_SUCH_ATTRIBUTE, path)


def _owner() -> dict[str, int]:
    return {"st_uid": os.getuid(), "st_gid": os.getgid()}
