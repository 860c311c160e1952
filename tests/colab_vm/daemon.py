"""The process that stands for ``/opt/google/drive/drive``.

python -m tests.colab_vm.daemon MOUNTPOINT CACHE CLOUD CONTROL [--readonly]
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import mfusepy

from tests.colab_vm.failures import Failures
from tests.colab_vm.filesystem import DriveFiles, LiveRules
from tests.colab_vm.store import CloudStore
from tests.colab_vm.tree import Tree
from tests.colab_vm.uploader import Uploader

# Nothing is remembered by the kernel: each call reaches the rules.
_NO_MEMORY = {"attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0}


class Answering:
    """Tells the host, over a socket in the control folder, what is under way."""

    def __init__(self, path: Path, state: Callable[[], dict]) -> None:
        self._state = state
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        threading.Thread(target=self._work, name="answering", daemon=True).start()

    def _work(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(json.dumps(self._state()).encode())


def main() -> None:
    mountpoint, cache, cloud, control = (Path(argument) for argument in sys.argv[1:5])
    is_readonly = "--readonly" in sys.argv[5:]
    rules = LiveRules(control / "rules.json")
    if not rules().cache_survives:
        shutil.rmtree(cache, ignore_errors=True)
    failures = Failures(cloud)
    failures.collect()
    store = CloudStore(cloud)
    tree = Tree(cache, store)
    uploader = Uploader(tree, store, rules)
    mounted_at = time.time()

    def state() -> dict:
        return {
            "waiting": uploader.waiting(),
            "met": rules.met,
            "mounted_at": mounted_at,
            "failure": failures.said(),
        }

    def on_start() -> None:
        (control / "drive.pid").write_text(str(os.getpid()))
        Answering(control / "drive.sock", state)
        uploader.start()

    Path("/proc/self/comm").write_text("drive")
    mountpoint.mkdir(exist_ok=True)
    files = DriveFiles(tree, store, rules, on_start=on_start)
    names = {"fsname": "drive", "subtype": "drive", "ro": is_readonly}
    mfusepy.FUSE(files, str(mountpoint), foreground=True, **names, **_NO_MEMORY)
    uploader.stop()
    tree.close()


if __name__ == "__main__":
    main()
