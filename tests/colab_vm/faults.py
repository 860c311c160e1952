"""The rules at work: a call takes its time, or fails."""

from __future__ import annotations

import fnmatch
import os
import threading
import time
from pathlib import Path

from tests.colab_vm.rules import DriveRules, read_rules


def fail(number: int, path: str = "") -> OSError:
    return OSError(number, os.strerror(number), path)


class LiveRules:
    """The rules as their file has them now, and how often each fault was met."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._rules = DriveRules()
        self._lock = threading.Lock()
        self.met: dict[str, int] = {}

    def __call__(self) -> DriveRules:
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return self._rules
        with self._lock:
            if self._stamp != (now.st_mtime_ns, now.st_ino):
                self._rules = read_rules(self._path)
                self._stamp = (now.st_mtime_ns, now.st_ino)
            return self._rules

    def apply(self, op: str, path: str) -> DriveRules:
        """Takes a call's time, and raises its fault if there is one."""
        rules = self()
        if rules.latency_s:
            time.sleep(rules.latency_s)
        for fault in rules.faults:
            if fault.op not in (op, "*") or not fnmatch.fnmatch(path.lstrip("/"), fault.path):
                continue
            with self._lock:
                met = self.met[fault.id] = self.met.get(fault.id, 0) + 1
            failures = met - fault.skip
            if failures >= 1 and (fault.count is None or failures <= fault.count):
                time.sleep(fault.hangs_s)
                if not fault.errnos:
                    continue
                raise fail(fault.errnos[min(failures, len(fault.errnos)) - 1], path)
        return rules
