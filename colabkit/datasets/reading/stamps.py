"""An archive's size and time of change as one word: what tells that it is the same as before."""

from __future__ import annotations

from pathlib import Path

from colabkit.datasets.reading.access import NOTHING, Access
from colabkit.datasets.reading.web import as_os_error, located

_VALIDATORS = ("ETag", "etag", "Last-Modified", "LastModified", "md5Hash", "mtime", "updated")


def stamp_of(path: str, access: Access = NOTHING) -> str:
    """Returns the stamp of a path or URL, "" where a server tells nothing to go by.

    Raises:
        MissingPackageError: The URL needs a package that is not installed.
        OSError: It cannot be looked at.
    """
    if "://" not in path:
        status = Path(path).stat()
        return f"{status.st_size}:{status.st_mtime_ns}"
    place = located(path, access)
    try:
        facts = place.files.info(place.inside)
    except Exception as error:
        raise as_os_error(error, path) from error
    told = [f"{name}={facts[name]}" for name in _VALIDATORS if facts.get(name)]
    return f"{facts.get('size')}:{','.join(told)}" if told else ""
