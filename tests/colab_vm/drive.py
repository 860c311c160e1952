"""A machine's Drive, as a test holds it: its rules, its deaths, what it has yet to upload."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.colab_vm.rules import DriveRules, Fault, read_rules, write_json, write_rules

if TYPE_CHECKING:
    from tests.colab_vm.machine import Machine


class MountOutcome(enum.StrEnum):
    """How a start of Drive ends."""

    MOUNTED = "mounted"
    FAILED = "failed"
    ROOT_TIMEOUT = "root timeout"
    DOMAIN_POLICY = "domain policy"
    PEXPECT_TIMEOUT = "pexpect timeout"


class DriveControl:
    """Changes how Drive behaves on one machine while it runs.

    Attributes:
        mountpoint: Where tests mount it by default.
    """

    mountpoint = "/content/drive"

    def __init__(self, machine: Machine, control: Path, rules: DriveRules) -> None:
        self._machine = machine
        self._control = control
        self._rules_file = control / "rules.json"
        write_rules(self._rules_file, rules)
        self.will_mount()

    @property
    def rules(self) -> DriveRules:
        return read_rules(self._rules_file)

    def change(self, **changes: object) -> None:
        """Sets rules by name; the very next call to the mount obeys them."""
        write_rules(self._rules_file, dataclasses.replace(self.rules, **changes))

    def inject(self, *faults: Fault) -> None:
        """Lets calls fail, in addition to those that do already."""
        self.change(faults=self.rules.faults + faults)

    def heal(self) -> None:
        """Takes all faults away."""
        self.change(faults=())

    def will_mount(
        self, *outcomes: MountOutcome, then: MountOutcome = MountOutcome.MOUNTED
    ) -> None:
        """Decides how the next starts end: one outcome each, and ``then`` for ever after."""
        write_json(self._control / "mounts.json", {"next": outcomes, "then": then})

    def mount(self, mountpoint: str | None = None, *, wait_s: float = 300) -> None:
        """Starts Drive without the notebook's help, as if a cell had mounted it."""
        mountpoint = mountpoint or self.mountpoint
        source = f"from google.colab import drive; drive._start({mountpoint!r}, readonly=False)"
        self._machine.run_script(source, timeout_s=wait_s).check()

    def kill_mount(self) -> None:
        """Kills the daemon with SIGKILL: the mount answers ENOTCONN from now on."""
        source = "from google.colab import drive; drive._kill()"
        self._machine.run_script(source).check()

    def unmount(self) -> None:
        """Takes the mount away, with no flush: an ordinary, empty folder is left."""
        source = f"from google.colab import drive; drive._unmount_and_kill({self.mountpoint!r})"
        self._machine.run_script(source).check()

    def state(self) -> dict:
        """Returns what waits for its upload (path, nbytes, sent, why) and how often faults met."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._control / "drive.sock"))
            state = json.loads(b"".join(iter(lambda: connection.recv(1 << 16), b"")))
        if state["failure"] is not None:
            msg = f"the double itself failed: {state['failure']}"
            raise AssertionError(msg)
        return state

    def waiting(self) -> list[dict]:
        return self.state()["waiting"]

    def wait_until_uploaded(self, *, timeout_s: float = 300) -> None:
        """Waits until the cloud has everything."""
        end = time.monotonic() + timeout_s
        while waiting := self.waiting():
            if time.monotonic() > end:
                msg = f"not uploaded after {timeout_s} s: {waiting}"
                raise TimeoutError(msg)
            time.sleep(0.01)

    @property
    def is_alive(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.state())
        return False
