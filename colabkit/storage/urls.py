"""Places that are no folder of this machine: told by their URL."""

from __future__ import annotations

import re
from pathlib import Path

from colabkit.errors import ArgumentError

RCLONE = "rclone"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
# pathlib makes one slash of two.
_SPOILED = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")


def url_of(path: str | Path) -> str | None:
    """Returns a URL, None when the path is one of this machine.

    Raises:
        ArgumentError: It was a URL once, and ``Path`` has spoiled it.

    Example:
        >>> url_of("s3://bucket/run/")
        's3://bucket/run'
        >>> url_of("runs/cats") is None
        True
        >>> url_of("file:///tmp/run") is None
        True
    """
    text = str(path)
    spoiled = _SPOILED.match(text)
    if spoiled and _is_protocol(spoiled[1]):
        message = f"{text!r} has lost a slash after {spoiled[1]}:, as a Path does to a URL."
        hint = f'Pass a string: "{spoiled[1]}://{text[spoiled.end() :]}".'
        raise ArgumentError(message, argument="path", hint=hint)
    if "::" in text and "://" in text:
        message = f"{text!r} chains file systems."
        raise ArgumentError(message, argument="path", hint="Pass the URL of the place itself.")
    found = _URL.match(text)
    if found is None or found[1].lower() == "file":
        return None
    return found[0].lower() + text[found.end() :].rstrip("/")


def protocol_of(url: str) -> str:
    """Returns what stands before ``://``."""
    return url.partition("://")[0]


def joined(location: str, name: str) -> Path | str:
    """Returns the place of a blob as its user may open it.

    Example:
        >>> joined("gs://bucket/run", "history.csv")
        'gs://bucket/run/history.csv'
    """
    return f"{location}/{name}" if _URL.match(location) else Path(location) / name


def _is_protocol(name: str) -> bool:
    from fsspec import available_protocols

    return name == RCLONE or name in available_protocols()
