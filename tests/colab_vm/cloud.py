"""One Drive account, which outlives every machine that mounts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.colab_vm.failures import Failures
from tests.colab_vm.machine import Machine
from tests.colab_vm.platforms import Platform
from tests.colab_vm.rules import DriveRules
from tests.colab_vm.store import CloudStore, sizes_under


class Cloud:
    """The account's files as Google has them, and the machines that were lent.

    Args:
        folder: Where the account lives, made if need be.
        quota_bytes: What fits, the Trash included; None means everything.
    """

    def __init__(self, folder: str | Path, *, quota_bytes: int | None = None) -> None:
        self.folder = Path(folder).resolve()
        self._store = CloudStore(self.folder)
        self._store.quota_bytes = quota_bytes
        self._machines: list[Machine] = []

    def machine(
        self,
        platform: Platform | str = Platform.CPU,
        *,
        rules: DriveRules | None = None,
        disk_bytes: int | None = None,
        environ: Mapping[str, str | None] | None = None,
        files: Mapping[str, str] | None = None,
        visible: Sequence[str | Path] = (),
    ) -> Machine:
        """Starts a fresh machine.

        Args:
            platform: The kind of machine.
            rules: How its Drive behaves.
            disk_bytes: The size of its local disk; half the computer's memory by default.
            environ: Variables in addition; None takes one away.
            files: Files that it has from the start, by absolute path; one that begins with
                ``#!`` may be executed. Not below /usr and /etc, which are the host's, read-only.
            visible: Folders of the host that it sees, and may write, under their own paths.
        """
        for before in self._machines:
            if not before.is_alive:
                before.wait_until_gone()
        machine = Machine(
            self.folder,
            platform=Platform(platform),
            rules=rules,
            disk_bytes=disk_bytes,
            environ=environ,
            files=files,
            visible=visible,
        )
        self._machines.append(machine)
        return machine

    @property
    def quota_bytes(self) -> int | None:
        return self._store.quota_bytes

    @quota_bytes.setter
    def quota_bytes(self, nbytes: int | None) -> None:
        self._store.quota_bytes = nbytes

    def path(self, relative: str) -> Path:
        """Returns where the cloud keeps a path below My Drive: read it, or plant a file."""
        return self._store.path(relative)

    def files(self) -> dict[str, int]:
        """Returns the size of every object in the cloud by its path below My Drive."""
        return sizes_under(self._store.root)

    def trash(self) -> dict[str, int]:
        """Returns the size of every object in the Trash by the path it has there."""
        return sizes_under(self._store.trash_folder)

    def used_bytes(self) -> int:
        """Returns what counts against the quota."""
        return self._store.used_bytes()

    def empty_trash(self) -> None:
        self._store.empty_trash()

    def close(self) -> None:
        """Ends every machine that still runs; raises if the double itself failed on one."""
        while self._machines:
            self._machines.pop().kill()
        Failures(self.folder).check()

    def __enter__(self) -> Cloud:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
