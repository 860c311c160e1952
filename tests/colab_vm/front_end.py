"""The browser tab of a machine's notebook: who answers, and what it was asked."""

from __future__ import annotations

import enum
import json
from pathlib import Path

from tests.colab_vm.rules import write_json


class Answer(enum.StrEnum):
    """What the front end does with a request for authorisation."""

    SILENT = "silent"  # credentials propagate again, no pop-up
    CONSENT = "consent"  # somebody clicks after ``consent_s``
    DENIED = "denied"
    NOBODY = "nobody"  # the request times out and gives None


class Client(enum.StrEnum):
    """What shows the notebook."""

    PAGE = "page"  # Colab's own, which names the cell and answers everything
    EDITOR = "editor"  # VS Code's extension: answers the question for Drive only
    TERMINAL = "terminal"  # the colab command line, papermill: names no cell, prints all anew

    @property
    def names_of_a_cell(self) -> dict[str, object]:
        """What it says of a cell that it wants run."""
        match self:
            case Client.PAGE:
                return {"colab": {"cell_id": "double"}}
            case Client.EDITOR:
                return {"cellId": "vscode-notebook-cell:/content/double.ipynb#W0sZmlsZQ%3D%3D"}
            case Client.TERMINAL:
                return {}


_SETTINGS = (
    "answer",
    "clock_rate",
    "consent_s",
    "ends_after_s",
    "has_network",
    "keeps_credentials",
    "kind",
    "refuses_unassign",
    "secrets",
)


class FrontEnd:
    """Settings that a test may change at any time.

    Attributes:
        kind: What shows the notebook.
        answer: What happens to a request.
        consent_s: When the click comes, in seconds of the machine's clock.
        clock_rate: Seconds of the machine's clock per second: 60 makes a time-out of two minutes
            pass in two seconds.
        keeps_credentials: Whether a mount works with nobody there, when one was authorised before
            on this machine.
        secrets: What ``userdata.get`` finds.
        refuses_unassign: Whether ``runtime.unassign`` fails.
        has_network: Whether ``runtime.unassign`` finds whom to ask.
        ends_after_s: How long the machine lives on after it.
    """

    kind = Client.PAGE
    answer = Answer.SILENT
    consent_s = 1.0
    clock_rate = 1.0
    keeps_credentials = False
    refuses_unassign = False
    has_network = True
    ends_after_s = 1.5

    def __init__(self, control: Path) -> None:
        self.__dict__["_control"] = control
        self.__dict__["secrets"] = {}
        self._write()

    def __setattr__(self, name: str, value: object) -> None:
        if name not in _SETTINGS:
            raise AttributeError(name)
        kinds = {"answer": Answer, "kind": Client}
        self.__dict__[name] = kinds[name](value) if name in kinds else value
        self._write()

    def add_secret(self, name: str, value: str, *, access: bool = True) -> None:
        self.secrets = self.secrets | {name: {"exists": True, "access": access, "payload": value}}

    @property
    def requests(self) -> list[dict]:
        """Everything the machine asked for, in order, off the main thread included."""
        try:
            lines = (self._control / "requests.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]

    def _write(self) -> None:
        settings = {name: getattr(self, name) for name in _SETTINGS}
        write_json(self._control / "front_end.json", settings)
