"""What this computer must be able to do for machines to run on it."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess

_NAMESPACES = ("--mount", "--pid", "--fork", "--kill-child")


@functools.cache
def namespace_options() -> tuple[str, ...] | None:
    """Returns the options of ``unshare`` that work here; None when none do."""
    if not shutil.which("unshare") or not shutil.which("nsenter"):
        return None
    for options in (_NAMESPACES, ("--map-root-user", *_NAMESPACES)):
        probe = "mount -t tmpfs probe /tmp && mount -t proc proc /proc"
        command = ["unshare", *options, "sh", "-c", probe]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return options
    return None


@functools.cache
def missing_ability() -> str | None:
    """Returns why no machine can run here; None when one can."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse cannot be opened: {error.strerror}"
    try:
        import mfusepy  # noqa: F401
    except (ImportError, OSError) as error:
        return f"FUSE's library is missing (apt-get install fuse3): {error}"
    if namespace_options() is None:
        return "unshare cannot make mount and PID namespaces"
    return None
