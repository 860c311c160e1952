"""The source of one call, opened when it is first needed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from colabkit.datasets.archives import ArchiveOrigin
from colabkit.datasets.finding import Found, SourceKind
from colabkit.datasets.origins import Contents, FolderOrigin, Origin, Retry
from colabkit.datasets.plan import chosen
from colabkit.datasets.watch import Phase, Watch
from colabkit.errors import ArgumentError, ColabKitError


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What a call asked for.

    Attributes:
        found: The source.
        selection: The members wanted, None for all.
        sha256: What the archive's SHA-256 has to be, None for any.
        refresh: Whether to make it anew in any case.
        read_all: Whether to verify by reading every byte.
        pack: Whether to pack a folder into an archive beside it.
        evict: Whether older datasets may go when room is short.
        password: For encrypted archives.
    """

    found: Found
    selection: tuple[str, ...] | None = None
    sha256: str | None = None
    refresh: bool = False
    read_all: bool = False
    pack: bool = False
    evict: bool = False
    password: str | None = None


class Supply:
    """Gives a source's stamp and contents, each found out once.

    Args:
        request: What the call asked for.
        watch: Is told how far it is.
        retry: Called when the source does not answer.
    """

    def __init__(self, request: Request, *, watch: Watch, retry: Retry) -> None:
        self._request = request
        self._watch = watch
        self._retry = retry
        self._origin: Origin | None = None
        self._stamp: str | None = None
        self._contents: Contents | None = None
        self.unreachable: Exception | None = request.found.error

    @property
    def origin(self) -> Origin:
        """The source.

        Raises:
            ColabKitError: It is missing or cannot be used.
        """
        if self._origin is None:
            self._origin = self._open()
        return self._origin

    def stamp(self) -> str | None:
        """Returns the source's stamp, None when it cannot be reached now."""
        if self._stamp is None and self.unreachable is None:
            try:
                self._stamp = self.origin.stamp()
            except ColabKitError:
                raise
            except OSError as error:
                self.unreachable = error
        return self._stamp

    def contents(self) -> Contents:
        """Returns what the source holds.

        Raises:
            ColabKitError: It is missing, unsafe or corrupt.
            OSError: It cannot be read.
        """
        if self._contents is None:
            self._watch.begin(Phase.LOOKING)
            self._contents = self.origin.contents()
        return self._contents

    def _open(self) -> Origin:
        request = self._request
        if request.found.error is not None:
            raise request.found.error
        if request.found.kind is SourceKind.FOLDER:
            if request.sha256 is not None:
                message = "sha256 is of one archive, and the source is a folder."
                raise ArgumentError(message, argument="sha256")
            return FolderOrigin(
                Path(request.found.paths[0]),
                watch=self._watch,
                retry=self._retry,
                selects=chosen(request.selection),
            )
        return ArchiveOrigin(
            request.found.paths,
            watch=self._watch,
            retry=self._retry,
            selection=request.selection,
            password=request.password,
            hashed=request.sha256 is not None,
        )
