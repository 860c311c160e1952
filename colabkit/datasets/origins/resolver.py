"""The source of one call, opened when it is first needed."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Sequence
from pathlib import Path

from colabkit.datasets.archives.safety import Limits, chosen
from colabkit.datasets.origins.archive import ArchiveOrigin
from colabkit.datasets.origins.base import (
    Contents,
    FolderOrigin,
    Notes,
    Origin,
    files_origin,
    packed_path,
)
from colabkit.datasets.origins.parts import ARCHIVE_SUFFIXES, PartsOrigin, suffix_of
from colabkit.datasets.reading.progress import Phase, Watch
from colabkit.datasets.reading.retrying import Retry
from colabkit.datasets.reading.web import SIGN_IN_HINT, Access
from colabkit.datasets.resolve import Found, SourceKind, is_url
from colabkit.errors import ArgumentError, ColabKitError, StorageError


@dataclasses.dataclass(frozen=True, slots=True)
class DatasetRequest:
    """What a call asked for.

    Attributes:
        found: The source.
        selection: The members wanted, None for all.
        checksum: What the archive's SHA-256 has to be, or its MD5 after "md5:"; None for any.
        refresh: Whether to make it anew in any case.
        read_all: Whether to verify by reading every byte.
        pack: Whether to pack a folder into an archive beside it.
        evict: Whether older datasets may go when room is short.
        password: For encrypted archives.
        limits: What counts as a bomb, None for the usual.
        encoding: Of names that do not tell theirs, None to judge.
        access: How to ask for what is behind a URL.
        unpack: Whether archives are unpacked, and not copied as they are.
        subfolders: Whether each archive gets a folder of its own.
        nested: Whether archives in the archive are unpacked too.
    """

    found: Found
    selection: tuple[str, ...] | None = None
    checksum: str | None = None
    refresh: bool = False
    read_all: bool = False
    pack: bool = False
    evict: bool = False
    password: str | bytes | None = None
    limits: Limits | None = None
    encoding: str | None = None
    access: Access = dataclasses.field(default_factory=Access)
    unpack: bool = True
    subfolders: bool = False
    nested: bool = False


class OriginResolver:
    """Gives a source's stamp and contents, each found out once.

    Args:
        request: What the call asked for.
        watch: Is told how far it is.
        retry: Called when the source does not answer.
    """

    def __init__(self, request: DatasetRequest, *, watch: Watch, retry: Retry) -> None:
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
            except OSError as error:
                if isinstance(error, ColabKitError) and not self._is_behind_url:
                    raise
                self.unreachable = error
        return self._stamp

    @property
    def _is_behind_url(self) -> bool:
        """Whether an error may be the service's: what was made before is good all the same."""
        return any(map(is_url, self._request.found.paths))

    def stamp_now(self) -> str:
        """Returns the source's stamp as it is now, waiting out what fails.

        Raises:
            ColabKitError: The source is missing or failed for too long.
        """
        while True:
            try:
                return self.origin.stamp()
            except OSError as error:
                self._wait_out(error)

    def _wait_out(self, error: OSError) -> None:
        try:
            self._retry(error)
        except ColabKitError:
            raise
        except OSError as final:
            if final.errno == errno.EOPNOTSUPP:
                raise  # it is about one file in the source, not about the way there
            name = self._request.found.name
            message = f"{name} cannot be opened ({final.strerror or final})."
            hint = "Check the path or the address, and that it can be reached from here."
            if final.errno == errno.EACCES:
                hint = SIGN_IN_HINT
            raise StorageError(message, path=name, operation="open", hint=hint) from final

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

    def close(self) -> None:
        """Gives back what was needed only while the call lasted."""
        if self._origin is not None:
            self._origin.close()

    def notes(self) -> Notes:
        """Returns what there is to say of the source."""
        notes = Notes() if self._origin is None else self._origin.notes()
        request = self._request
        if request.found.kind is SourceKind.FOLDER and (request.nested or request.subfolders):
            unheeded = (
                f"{request.found.label} is a folder, which is copied as it is: nested= and"
                f" subfolders= are of archives, as {request.found.paths[0] + '/*'!r} names them."
            )
            notes = dataclasses.replace(notes, losses=(*notes.losses, unheeded))
        found = request.found.note
        return dataclasses.replace(notes, hints=(found, *notes.hints)) if found else notes

    def _open(self) -> Origin:
        request = self._request
        if request.found.error is not None:
            raise request.found.error
        if request.found.kind is SourceKind.FOLDER:
            return self._open_folder(Path(request.found.paths[0]))
        if request.found.kind is SourceKind.SERVICE:
            return self._open_service(request.found.paths[0])
        if request.pack:
            message = "pack=True packs a folder, and the source is an archive already."
            raise ArgumentError(message, argument="pack", hint="Leave it out.")
        paths = request.found.paths
        alone = request.found.kind is SourceKind.ARCHIVES
        if not request.unpack:
            return self._open_as_they_are(paths)
        is_named_so = is_url(paths[0]) or suffix_of(paths[0]) in ARCHIVE_SUFFIXES
        if alone and (is_named_so or request.found.splits):
            return self._open_archives()
        if request.checksum is None:
            return PartsOrigin(
                paths,
                watch=self._watch,
                retry=self._retry,
                selects=chosen(request.selection),
                as_archives=self._open_archives,
                alone=alone,
            )
        return self._open_archives()

    def _open_service(self, url: str) -> Origin:
        from colabkit.datasets.origins.services import ServiceOrigin, service_of

        request = self._request
        if request.checksum is not None or request.pack:
            argument = "pack" if request.pack else _algorithm(request.checksum)
            message = f"{argument} is not for what a service's library downloads as a folder."
            raise ArgumentError(message, argument=argument, hint="Leave it out.")
        return ServiceOrigin(
            service_of(url, request.access, request.selection),
            watch=self._watch,
            retry=self._retry,
            selects=chosen(request.selection),
        )

    def _open_as_they_are(self, paths: Sequence[str]) -> Origin:
        """Returns what copies archives as they are, as shards that a loader unpacks."""
        request = self._request
        if request.checksum is not None:
            message = "A checksum is of an archive that is unpacked, and unpack=False."
            raise ArgumentError(message, argument="unpack", hint="Leave one of them out.")
        selects = chosen(request.selection)
        if any(map(is_url, paths)):
            from colabkit.datasets.origins.services import ServiceOrigin, UrlFiles

            service = UrlFiles(paths, request.access, watch=self._watch, retry=self._retry)
            return ServiceOrigin(service, watch=self._watch, retry=self._retry, selects=selects)
        return files_origin(paths, watch=self._watch, retry=self._retry, selects=selects)

    def _open_archives(self) -> Origin:
        archives = self._open_flat()
        if not self._request.nested:
            return archives
        # Loaded where it is asked for: an archive alone needs nothing that writes one.
        from colabkit.datasets.origins.composed import NestedOrigin

        return NestedOrigin(archives, watch=self._watch, retry=self._retry)

    def _open_flat(self) -> ArchiveOrigin:
        request = self._request
        return ArchiveOrigin(
            request.found.paths,
            watch=self._watch,
            retry=self._retry,
            selection=request.selection,
            password=request.password,
            hashed=_algorithm(request.checksum),
            limits=request.limits,
            encoding=request.encoding,
            splits=request.found.splits,
            access=request.access,
            subfolders=request.subfolders,
        )

    def _open_folder(self, root: Path) -> Origin:
        request = self._request
        if request.checksum is not None:
            argument = _algorithm(request.checksum)
            message = f"{argument} is of one archive, and the source is a folder."
            raise ArgumentError(message, argument=argument)
        from colabkit.datasets.origins.composed import PackedOrigin
        from colabkit.datasets.packing.pieces import is_pack

        was_packed = is_pack(packed_path(root)) and os.access(root.parent, os.W_OK)
        if request.pack or was_packed:
            return PackedOrigin(
                root, watch=self._watch, retry=self._retry, selection=request.selection
            )
        return FolderOrigin(
            root, watch=self._watch, retry=self._retry, selects=chosen(request.selection)
        )


def _algorithm(checksum: str | None) -> str:
    """Returns by what a checksum is made, "" for none."""
    if checksum is None:
        return ""
    return "md5" if checksum.startswith("md5:") else "sha256"
