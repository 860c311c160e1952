"""An archive's size and time of change as one word: what tells that it is the same as before."""

from __future__ import annotations

import errno
import importlib
from pathlib import Path

_VALIDATORS = ("ETag", "etag", "Last-Modified", "LastModified", "md5Hash", "mtime", "updated")


def stamp_of(path: str) -> str:
    """Returns the stamp of a path or URL, "" where a server tells nothing to go by.

    Raises:
        OSError: It cannot be looked at.
    """
    if "://" not in path:
        status = Path(path).stat()
        return f"{status.st_size}:{status.st_mtime_ns}"
    fsspec = importlib.import_module("fsspec")
    try:
        files, inside = fsspec.core.url_to_fs(path)
        facts = files.info(inside)
    except OSError:
        raise
    except Exception as error:
        # Each file system behind fsspec has errors of its own; to a reader they are one.
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}", path) from error
    told = [f"{name}={facts[name]}" for name in _VALIDATORS if facts.get(name)]
    return f"{facts.get('size')}:{','.join(told)}" if told else ""
