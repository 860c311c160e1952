"""A dataset that another library downloads, copied from where it puts it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from colabkit.datasets.archives.member_selection import Wanted
from colabkit.datasets.cache.manifest import Member
from colabkit.datasets.cache.staging import Staging
from colabkit.datasets.folders.listing import list_folder
from colabkit.datasets.folders.mirroring import Before, mirror
from colabkit.datasets.origins.base import Contents
from colabkit.datasets.origins.services import Service
from colabkit.datasets.reading.progress import Phase, Watch
from colabkit.datasets.reading.retrying import Retry

_FETCHED = "fetched"


class ServiceOrigin:
    """What a service's library downloads.

    Args:
        service: Brings it.
        watch: Is told how far it is.
        retry: Called when the service does not answer.
        selects: Says which paths to take.
    """

    def __init__(
        self, service: Service, *, watch: Watch, retry: Retry, selects: Wanted | None
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

    def _count(self, nbytes: int) -> None:
        self._watch.add(nbytes=nbytes)

    def _downloaded(self, into: Path) -> Path:
        while True:
            try:
                return self._service.download(into, self._count)
            except OSError as error:
                self._retry(error)
