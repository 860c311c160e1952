"""Datasets that a service's own library brings: Kaggle, Hugging Face, folders shared on Drive."""

from __future__ import annotations

import contextlib
import errno
import importlib
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from colabkit.datasets.archives.safety import MemberSelection, member_path
from colabkit.datasets.cache.manifest import Member
from colabkit.datasets.cache.publishing import Staging
from colabkit.datasets.folders.listing import list_folder
from colabkit.datasets.folders.mirroring import Before, mirror
from colabkit.datasets.origins.base import Contents, Notes
from colabkit.datasets.reading.downloads import Downloads
from colabkit.datasets.reading.progress import Phase, Watch
from colabkit.datasets.reading.retrying import Retry
from colabkit.datasets.reading.shared_links import drive_download, drive_folder, drive_link
from colabkit.datasets.reading.source import Source, stamp_of
from colabkit.datasets.reading.split_names import name_of
from colabkit.datasets.reading.web import Access
from colabkit.errors import (
    ArgumentError,
    ColabKitError,
    DatasetNotFoundError,
    MissingPackageError,
    StorageError,
)
from colabkit.storage import hash_of

_PIECE_BYTES = 4 << 20
_TIMEOUT_S = 60.0
_LEFT_BY_HUGGING_FACE = ".cache/huggingface/"
_TEMPORARY = ".colabkit-part"
_COMPETITIONS = "competitions/"
# As the libraries call them, by class name: each has several versions in use.
_NOT_FOUND = ("RepositoryNotFoundError", "RevisionNotFoundError", "EntryNotFoundError")
_NOT_SIGNED_IN = ("GatedRepoError", "UnauthenticatedError", "CredentialError")
_FETCHED = "fetched"
# (owner/name, revision, folder); a revision with slashes is one of the service's own.
_HUGGING_FACE = r"([^/@]+(?:/[^/@]+)?)(?:@(refs/[^/]+/[^/]+|[^/]+))?(?:/(.*))?"


class Service(Protocol):
    """A dataset behind a service's library."""

    def stamp(self) -> str:
        """Returns one word that changes when the dataset does."""
        ...

    def download(self, into: Path, count: Callable[[int], None]) -> Path:
        """Brings it to this disk; returns its folder, which is ``into`` or the library's own."""
        ...

    def takes(self, path: str) -> bool:
        """Whether a file of that folder belongs to the dataset."""
        ...


def service_of(url: str, access: Access, selection: Sequence[str] | None) -> Service:
    """Returns what brings the dataset behind a URL.

    Args:
        url: As ``kaggle://owner/name``, ``hf://datasets/owner/name``, or a folder shared on Drive.
        access: How to ask for it.
        selection: The members wanted, None for all.
    """
    if url.startswith("kaggle://"):
        return _Kaggle(url)
    if url.startswith("hf://"):
        return _HuggingFace(url, access, selection)
    return _DriveFolder(url)


class _Kaggle:
    def __init__(self, url: str) -> None:
        self._url = url
        self._handle = url.removeprefix("kaggle://")
        self._folder: Path | None = None

    def stamp(self) -> str:
        # The library's folder is called by the version, and is there at once if it is the newest.
        return str(self._downloaded())

    def download(self, into: Path, count: Callable[[int], None]) -> Path:  # noqa: ARG002
        return self._downloaded()

    def takes(self, path: str) -> bool:  # noqa: ARG002
        return True

    def _downloaded(self) -> Path:
        if self._folder is None:
            with _own_errors(self._url, "kagglehub"):
                kagglehub = importlib.import_module("kagglehub")
                if self._handle.startswith(_COMPETITIONS):
                    name = self._handle.removeprefix(_COMPETITIONS)
                    self._folder = Path(kagglehub.competition_download(name))
                else:
                    self._folder = Path(kagglehub.dataset_download(self._handle))
        return self._folder


class _HuggingFace:
    def __init__(self, url: str, access: Access, selection: Sequence[str] | None) -> None:
        found = re.fullmatch(_HUGGING_FACE, url.removeprefix("hf://datasets/"))
        name, revision, inside = found.groups() if found else (url, None, None)
        self._url = url
        self._inside = inside or ""
        self._facts: dict[str, Any] = {
            "repo_id": name,
            "repo_type": "dataset",
            "revision": revision,
            "token": False if access.anonymous else access.token,
        }
        wanted = [name for name in selection or () if not name.startswith("!")]
        below = [self._inside] if self._inside else []
        self._patterns = [pattern for name in wanted or below for pattern in (name, f"{name}/*")]

    def stamp(self) -> str:
        with _own_errors(self._url, "huggingface_hub"):
            info = importlib.import_module("huggingface_hub").HfApi().repo_info(**self._facts)
            return str(info.sha)

    def download(self, into: Path, count: Callable[[int], None]) -> Path:  # noqa: ARG002
        with _own_errors(self._url, "huggingface_hub"):
            hub = importlib.import_module("huggingface_hub")
            hub.snapshot_download(
                **self._facts, local_dir=str(into), allow_patterns=self._patterns or None
            )
        return into

    def takes(self, path: str) -> bool:
        return not path.startswith(_LEFT_BY_HUGGING_FACE)


class _DriveFolder:
    def __init__(self, url: str) -> None:
        self._url = url
        self._id = drive_folder(url) or ""
        self._files: list[tuple[str, str]] = []

    def stamp(self) -> str:
        return hash_of(repr(sorted(self._listed())).encode())

    def download(self, into: Path, count: Callable[[int], None]) -> Path:
        for file_id, path in self._listed():
            target = into / path
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                _download(drive_download(file_id), drive_link(file_id), target, count)
        return into

    def takes(self, path: str) -> bool:
        return not path.endswith(_TEMPORARY)

    def _listed(self) -> list[tuple[str, str]]:
        """Returns id and path of each file, listed once."""
        if not self._files:
            with _own_errors(self._url, "gdown"):
                gdown = importlib.import_module("gdown")
                found = gdown.download_folder(id=self._id, skip_download=True, quiet=True)
                if found is None:
                    raise RuntimeError
                self._files = [(one.id, member_path(one.path)[0]) for one in found]
        return self._files


class UrlFiles:
    """Files behind URLs, as they are.

    Args:
        urls: The files.
        access: How to ask for them.
        watch: Is told how far it is.
        retry: Called when a server does not answer.
    """

    def __init__(self, urls: Sequence[str], access: Access, *, watch: Watch, retry: Retry) -> None:
        self._urls = urls
        self._access = access
        self._have_stamps = False
        self._downloads = Downloads(watch=watch, retry=retry, access=access)

    def stamp(self) -> str:
        """Returns a hash of what their servers tell, "" where one tells nothing."""
        stamps = [stamp_of(url, self._access) for url in self._urls]
        self._have_stamps = all(stamps)
        return hash_of("|".join(stamps).encode()) if self._have_stamps else ""

    def download(self, into: Path, count: Callable[[int], None]) -> Path:
        """Downloads what is not there yet."""
        names = [name_of(url) for url in self._urls]
        if len(set(names)) != len(names):
            message = "Two of the URLs end with one name: they cannot lie in one folder."
            raise ArgumentError(message, argument="source", hint="One call of dataset for each.")
        with contextlib.closing(self._downloads):
            for url, name in zip(self._urls, names, strict=True):
                if not (into / name).exists():
                    source = self._downloads.opened(url)
                    _copy(source, into / name, count, goes_on=self._have_stamps)
        return into

    def takes(self, path: str) -> bool:
        """Whether a file is one of them."""
        return not path.endswith(_TEMPORARY)


def _copy(source: Source, target: Path, count: Callable[[int], None], *, goes_on: bool) -> None:
    """Copies a file, behind what a call before has left of it where it is still the same."""
    temporary = target.with_name(target.name + _TEMPORARY)
    with contextlib.closing(source), temporary.open("ab" if goes_on else "wb") as file:
        while (done := file.tell()) < source.nbytes:
            piece = source.read(done, min(_PIECE_BYTES, source.nbytes - done))
            if not piece:
                message = f"{source.name} ended after {done:,} of {source.nbytes:,} bytes"
                raise ConnectionError(message)
            file.write(piece)
            count(len(piece))
    shutil.move(temporary, target)


def _download(address: str, link: str, target: Path, count: Callable[[int], None]) -> None:
    """Writes what an address gives into a file, which gets its name when it is whole."""
    import http.client
    import urllib.request

    temporary = target.with_name(target.name + _TEMPORARY)
    done = 0
    try:
        # What Google's own form named.
        answer = urllib.request.urlopen(address, timeout=_TIMEOUT_S)  # noqa: S310
        with answer, temporary.open("wb") as file:
            nbytes = answer.headers.get("Content-Length")
            while piece := answer.read(_PIECE_BYTES):
                file.write(piece)
                done += len(piece)
                count(len(piece))
    except http.client.HTTPException as error:
        raise OSError(errno.EIO, str(error) or type(error).__name__, link) from error
    if nbytes is not None and done != int(nbytes):
        message = f"{link} ended after {done:,} of {int(nbytes):,} bytes"
        raise ConnectionError(message)
    shutil.move(temporary, target)


@contextlib.contextmanager
def _own_errors(url: str, package: str) -> Iterator[None]:
    """Turns what a service's library raises into errors that say what to do."""
    try:
        yield
    except (ColabKitError, KeyboardInterrupt):
        raise
    except ImportError as error:
        message = f"{url} is brought by the package {package}, which is not installed."
        hint = f"Run %pip install {package}, then run the cell again."
        raise MissingPackageError(message, package=package, hint=hint) from error
    except Exception as error:
        # Each library has errors of its own, and other ones in each version.
        raise _failure(url, package, error) from error


def _failure(url: str, package: str, error: Exception) -> StorageError | DatasetNotFoundError:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    words = " ".join(str(error).split()) or type(error).__name__
    if "FolderContentsMaximumLimitError" in kinds:
        message = f"{url} has 50 files or more, and Google shows no more to who is not signed in."
        hint = (
            "Add a shortcut to the folder to your own Drive, run colabkit.mount(), and pass"
            ' "MyDrive/NAME"; or share it packed into one zip.'
        )
        return StorageError(message, path=url, operation="list", hint=hint)
    if package == "gdown":
        message = f"{url} cannot be listed: it is not shared with everybody who has the link."
        hint = 'Its owner sets "Anyone with the link" under Share. It may also be empty.'
        return StorageError(message, path=url, operation="list", hint=hint)
    if not kinds.isdisjoint(_NOT_SIGNED_IN) or status in {401, 403}:
        message = f"{url} is given only to who is signed in and has accepted its terms ({words})."
        hint = "Accept them on its page; then pass token=, or sign in with kagglehub.login()."
        return StorageError(message, path=url, operation="open", hint=hint)
    if not kinds.isdisjoint(_NOT_FOUND) or status in {404, 410}:
        message = f"There is no {url}, or it is private ({words})."
        return DatasetNotFoundError(
            message, path=url, hint="Check the name; of a private one, token=."
        )
    message = f"{package} could not bring {url} ({type(error).__name__}: {words})."
    return StorageError(message, path=url, operation="download", hint="Run the cell again.")


class ServiceOrigin:
    """What a service's library downloads.

    Args:
        service: Brings it.
        watch: Is told how far it is.
        retry: Called when the service does not answer.
        selects: Says which paths to take.
    """

    def __init__(
        self, service: Service, *, watch: Watch, retry: Retry, selects: MemberSelection | None
    ) -> None:
        self._service = service
        self._watch = watch
        self._retry = retry
        self._selects = selects

    def stamp(self) -> str:
        """Returns the service's word for what it has now."""
        return self._service.stamp()

    def contents(self) -> Contents:
        """Tells what the service tells before it is asked for everything."""
        return Contents(
            digest=self._service.stamp(),
            staging_key=f"service {self._service.stamp()}",
            files=None,
            n_folders=0,
            nbytes_least=0,
            verb="Downloaded",
        )

    def fill(self, staging: Staging, before: Before | None) -> Sequence[Member]:  # noqa: ARG002
        """Lets it be downloaded beside the tree, and copies what was asked for."""
        staging.remove(list(staging.unproven))
        self._watch.begin(Phase.DOWNLOADING)
        into = staging.tree.parent / _FETCHED
        into.mkdir(exist_ok=True)
        folder = self._downloaded(into)
        listing = list_folder(folder, check=self._watch.check, retry=self._retry).selected(
            lambda path: (
                self._service.takes(path) and (self._selects is None or self._selects(path))
            )
        )
        self._watch.begin(Phase.COPYING, bytes_total=listing.nbytes, files_total=len(listing.files))
        members = mirror(folder, listing, staging, watch=self._watch, retry=self._retry)
        shutil.rmtree(into)
        return members

    def checksum(self) -> str | None:
        """Has no single hash."""
        return None

    def notes(self) -> Notes:
        """Has nothing to say."""
        return Notes()

    def close(self) -> None:
        """Holds nothing."""

    def _count(self, nbytes: int) -> None:
        self._watch.add(nbytes=nbytes)

    def _downloaded(self, into: Path) -> Path:
        while True:
            try:
                return self._service.download(into, self._count)
            except OSError as error:
                self._retry(error)
