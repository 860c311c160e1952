"""URLs as fsspec reads them, what lets a user in, and what is said where one cannot be read."""

from __future__ import annotations

import dataclasses
import errno
import importlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from colabkit.datasets.reading.shared_links import drive_download, drive_file
from colabkit.datasets.reading.workers import Pool
from colabkit.errors import ArgumentError, MissingPackageError

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
# Some servers call a .tar.gz a tar that they packed on the way: a part of it cannot be unpacked.
_AS_IT_IS = MappingProxyType({"Accept-Encoding": "identity"})
# What fsspec itself needs for a protocol does not tell all that has to be installed for it.
_FOR_NOW, _REFUSED, _GONE = frozenset({408, 429}), frozenset({401, 403}), frozenset({404, 410})
_PARTIAL_CONTENT = 206
_SERVER_ERRORS = 500
SIGN_IN_HINT = (
    "Pass token= or headers=, sign in to the service, or ask for access; a public bucket needs"
    " anonymous=True."
)
_SILENCE_S = 60.0
# Some errors of aiohttp have no words of their own.
_WORDS = {"TooManyRedirects": "it leads from one address to the next without an end"}
_PACKAGES = {"http": "requests aiohttp", "https": "requests aiohttp"}


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """How to ask for what is behind a URL.

    Attributes:
        headers: Sent with each request to a web server.
        token: A bearer token for a web server, or one of Hugging Face or Google Cloud.
        anonymous: Whether a bucket is asked without any credentials of this machine.
    """

    headers: Mapping[str, str] = dataclasses.field(default_factory=lambda: _NO_HEADERS)
    token: str | None = None
    anonymous: bool = False

    def options(self, url: str) -> dict[str, Any]:
        """Returns what fsspec's file system of a URL is to be made with.

        Example:
            >>> Access(anonymous=True).options("s3://bucket/cats.zip")
            {'anon': True}
        """
        scheme = url.partition("://")[0]
        if scheme in {"http", "https"}:
            headers = {**_AS_IT_IS, **self.headers}
            if self.token:
                headers.setdefault("Authorization", f"Bearer {self.token}")
            aiohttp: Any = importlib.import_module("aiohttp")
            # By default an answer may take five minutes in all, however well it goes on, and a
            # server be silent for as long.
            patience = aiohttp.ClientTimeout(
                total=None, sock_connect=_SILENCE_S, sock_read=_SILENCE_S
            )
            kwargs = {"headers": headers, "auto_decompress": False, "timeout": patience}
            return {"client_kwargs": kwargs}
        if scheme in {"s3", "s3a"}:
            return {"anon": True} if self.anonymous else {}
        if scheme in {"gs", "gcs", "hf"} and (self.token or self.anonymous):
            return {"token": self.token or ("anon" if scheme != "hf" else False)}
        return {}


NOTHING = Access()


@dataclasses.dataclass(frozen=True, slots=True)
class Located:
    """A URL as fsspec sees it.

    Attributes:
        files: The file system.
        inside: The path in it.
    """

    files: Any
    inside: str


def located(url: str, access: Access = NOTHING) -> Located:
    """Returns where a URL leads; most protocols are not asked anything yet.

    Args:
        url: The URL.
        access: How to ask for it.

    Raises:
        MissingPackageError: Its protocol needs a package that is not installed.
        ArgumentError: It is no URL.
        OSError: The service refused.
    """
    fsspec = importlib.import_module("fsspec")
    if (file_id := drive_file(url)) is not None:
        url = drive_download(file_id)
    try:
        files, inside = fsspec.core.url_to_fs(url, **access.options(url))
    except ImportError as error:
        packages = _packages(url, error)
        message = f"{url} needs a package that is not installed ({error})."
        hint = f"Run %pip install {packages}, then run the cell again."
        raise MissingPackageError(message, package=packages, hint=hint) from error
    except ValueError as error:
        message = f"{url} is not a URL that can be opened ({error})."
        raise ArgumentError(message, argument="source") from error
    except Exception as error:
        raise as_os_error(error, url) from error
    return Located(files, inside)


def urls_like(pattern: str, access: Access = NOTHING) -> list[str]:
    """Returns the URLs of the files that a pattern names on a service that lists them.

    Raises:
        OSError: It does not list them.
    """
    place = located(pattern, access)
    try:
        found = place.files.glob(place.inside)
        return sorted(place.files.unstrip_protocol(path) for path in found)
    except Exception as error:
        raise as_os_error(error, pattern) from error


def urls_that_exist(urls: Sequence[str], access: Access = NOTHING) -> list[str]:
    """Returns those of some URLs that lead to a file; they are asked for side by side.

    Raises:
        OSError: Their server does not say.
    """
    with Pool(max(1, len(urls)), "colabkit-ask") as pool:
        are_there = pool.map(lambda url: _exists(url, access), urls)
        return [url for url, is_there in zip(urls, are_there, strict=True) if is_there]


def _exists(url: str, access: Access) -> bool:
    place = located(url, access)
    try:
        place.files.info(place.inside)
    except Exception as error:
        reason = as_os_error(error, url)
        if isinstance(reason, FileNotFoundError):
            return False
        raise reason from error
    return True


def as_os_error(error: Exception, url: str) -> OSError:
    """Returns an error as a reader knows it: each file system of fsspec has its own."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and isinstance(cause, Exception):
        # To fsspec a web server that cannot be reached or refuses is a missing file.
        number = cause.errno if isinstance(cause, OSError) and cause.errno else _number(cause)
        kind = type(cause).__name__
        return OSError(number, _WORDS.get(kind) or str(cause) or kind, url)
    if isinstance(error, OSError):
        return error
    words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return OSError(_number(error, errno.EIO), words, url)


def _number(error: Exception, otherwise: int = errno.ENOENT) -> int:
    """Returns an error's number: what a server says for good is told from what it says for now."""
    status = getattr(error, "status", None)
    if status in _FOR_NOW or (isinstance(status, int) and status >= _SERVER_ERRORS):
        return errno.EIO
    if status in _REFUSED or "Credentials" in type(error).__name__:
        return errno.EACCES
    return errno.ENOENT if status in _GONE else otherwise


def gives_parts(url: str, access: Access = NOTHING) -> bool:
    """Whether a web server sends a part of a file when asked for one.

    The answer's body is not awaited: a server that ignores the question sends the whole file.

    Raises:
        OSError: The server cannot be asked.
    """
    files, address = (place := located(url, access)).files, place.inside

    async def asked() -> bool:
        session = await files.set_session()
        options = {**files.kwargs}
        options["headers"] = {**options.get("headers", {}), "Range": "bytes=0-0"}
        async with session.get(files.encode_url(address), **options) as answer:
            return bool(answer.status == _PARTIAL_CONTENT)

    try:
        return bool(importlib.import_module("fsspec.asyn").sync(files.loop, asked))
    except Exception as error:
        raise as_os_error(error, url) from error


def is_web(path: str) -> bool:
    """Whether a source is on a web server.

    Example:
        >>> is_web("https://example.org/cats.zip"), is_web("gs://bucket/cats.zip")
        (True, False)
    """
    return path.startswith(("http://", "https://"))


def _packages(url: str, error: ImportError) -> str:
    missing = error.name or getattr(error.__cause__, "name", None) or "fsspec"
    return _PACKAGES.get(url.partition("://")[0], missing)
