"""The first process of a machine: builds its root folder, then reaps until the machine ends.

It runs in a mount and a PID namespace of its own, so that killing it takes everything with it.
The root folder is a tmpfs: the machine's local disk, gone with the last of its processes.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
from pathlib import Path

_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
# What a mount may not lose when it becomes read-only: nosuid, nodev, noexec, noatime, nodiratime.
_MS_KEPT = 2 | 4 | 8 | 1024 | 2048
_ST_RELATIME, _MS_RELATIME = 4096, 1 << 21
_SHARED_WITH_HOST = ("bin", "sbin", "lib", "lib32", "lib64", "usr", "etc", "nix", "sys")
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "fuse")
_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: Path, kind: str = "", *, flags: int = 0, data: str = "") -> None:
    arguments = (source.encode(), str(target).encode(), kind.encode(), flags, data.encode())
    if _libc.mount(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"mount {source} on {target}: {os.strerror(error)}")


def bind(source: Path, target: Path, *, writable: bool = True) -> None:
    """Shows a host's file or folder, with what is mounted in it, at a place of the machine."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    mount(str(source), target, flags=_MS_BIND | _MS_REC)
    if not writable:
        had = os.statvfs(target).f_flag
        kept = had & _MS_KEPT | (_MS_RELATIME if had & _ST_RELATIME else 0)
        mount("none", target, flags=_MS_REMOUNT | _MS_BIND | _MS_RDONLY | kept)


def build_root(plan: dict) -> Path:
    root = Path(plan["root"])
    mount("none", Path("/"), flags=_MS_REC | _MS_PRIVATE)
    size = plan["disk_bytes"]
    mount("disk", root, "tmpfs", data="mode=755" + (f",size={size}" if size else ""))
    for name in _SHARED_WITH_HOST:
        source = Path("/", name)
        if source.is_symlink():
            (root / name).symlink_to(source.readlink())
        elif source.is_dir():
            bind(source, root / name, writable=False)
    made = ("proc", "dev/shm", "dev/pts", "tmp", "var/tmp", "run", "root", plan["workdir"][1:])
    for name in made:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("tmp", "var/tmp", "dev/shm"):
        (root / name).chmod(0o1777)
    mount("proc", root / "proc", "proc")
    _add_devices(root, gpu=plan["gpu"])
    for program in () if plan["gpu"] else (root / "usr").glob("*bin/nvidia-smi"):
        bind(Path("/dev/null"), program)
    for path in plan["needed"]:
        bind(Path(path), root / path.lstrip("/"), writable=False)
    for path in plan["visible"]:
        bind(Path(path), root / path.lstrip("/"))
    for path, text in plan["files"].items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(0o755 if text.startswith("#!") else 0o644)
    return root


def _add_devices(root: Path, *, gpu: bool) -> None:
    nodes = [Path("/dev", name) for name in _DEVICES]
    if gpu:
        nodes += Path("/dev").glob("nvidia*")
    for node in nodes:
        if node.exists():
            bind(node, root / "dev" / node.name)
    bind(Path("/dev/pts"), root / "dev/pts")
    (root / "dev/ptmx").symlink_to("pts/ptmx")
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        (root / "dev" / name).symlink_to(f"/proc/self/fd{target}")


def reap_until_the_end() -> None:
    """Returns when the host lets go of our standard input, or on SIGTERM (``unassign``)."""
    ended = []
    signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while not ended:
        readable, _, _ = select.select([sys.stdin], [], [], 0.2)
        if readable and not os.read(0, 1):
            return
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            continue


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    root = build_root(plan)
    os.chroot(root)
    os.chdir(plan["workdir"])
    print("ready", flush=True)
    reap_until_the_end()
    os._exit(0)


if __name__ == "__main__":
    main()
