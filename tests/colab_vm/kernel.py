"""The Jupyter kernel of a machine, driven over ZeroMQ from outside it."""

from __future__ import annotations

import contextlib
import queue
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_START_S = 300
_END_S = 10


class MachineEndedError(RuntimeError):
    """The machine ended while a cell ran on it."""


class CellError(RuntimeError):
    """A cell raised; the text is the kernel's traceback without colours."""


class _SeenError(Exception):
    """A text that was waited for has come."""


@dataclass
class CellResult:
    """What a cell showed.

    Attributes:
        stdout: Its standard output.
        stderr: Its standard error.
        result: The text of its last expression, "" when it had none.
        data: The MIME bundles that it displayed, the result's included.
        updates: Those that took the place of one displayed before.
        cleared: How often all that it had shown before was taken away.
        error: "TypeName: message" when it raised, else None.
        traceback: The traceback as plain text.
    """

    stdout: str = ""
    stderr: str = ""
    result: str = ""
    data: list[Mapping[str, Any]] = field(default_factory=list)
    updates: list[Mapping[str, Any]] = field(default_factory=list)
    cleared: int = 0
    error: str | None = None
    traceback: str = ""

    def check(self) -> CellResult:
        """Returns itself; raises CellError if the cell raised."""
        if self.error is not None:
            raise CellError(self.traceback or self.error)
        return self


class Kernel:
    """A kernel that runs on a machine; each request blocks until it is answered."""

    def __init__(
        self,
        folder: Path,
        start: Callable[..., subprocess.Popen],
        *,
        is_colab: bool,
        names: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        import zmq
        from jupyter_client import BlockingKernelClient
        from jupyter_client.connect import write_connection_file

        connection_file = folder / "kernel.json"
        write_connection_file(str(connection_file), transport="ipc", ip=str(folder / "kernel"))
        kernel_class = ["--IPKernelApp.kernel_class=google.colab._kernel.Kernel"] * is_colab
        self._names = names
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", str(connection_file)]
        self._log = (folder / "kernel.log").open("wb")
        self._process = start([*command, *kernel_class], stdout=self._log, stderr=self._log)
        self._client = BlockingKernelClient()
        self._client.load_connection_file(str(connection_file))
        # A test that waits for something else loses nothing of what is printed meanwhile.
        self._client.context.setsockopt(zmq.RCVHWM, 0)
        self._client.start_channels(hb=False)
        try:
            self._client.wait_for_ready(timeout=_START_S)
        except RuntimeError as error:
            self.close()
            msg = f"the kernel did not start: {(folder / 'kernel.log').read_text()}"
            raise MachineEndedError(msg) from error
        self.pid = int(self.execute("import os; os.getpid()").result)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def begin(self, code: str) -> str:
        """Sends a cell and returns at once; ``finish`` waits for it."""
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
        content |= {"user_expressions": {}, "stop_on_error": True}
        message = self._client.session.msg("execute_request", content, metadata=self._names())
        self._client.shell_channel.send(message)
        return message["header"]["msg_id"]

    def execute(self, code: str, *, timeout_s: float | None = None) -> CellResult:
        return self.finish(self.begin(code), timeout_s=timeout_s)

    def finish(
        self,
        message_id: str,
        *,
        timeout_s: float | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> CellResult:
        """Collects what a cell shows until it has ended."""
        result, is_clearing = CellResult(), False
        end = time.monotonic() + timeout_s if timeout_s is not None else None
        while True:
            try:
                message = self._client.get_iopub_msg(timeout=0.1)
            except queue.Empty:
                if not self.is_alive:
                    raise MachineEndedError("the machine ended in the middle of a cell") from None
                if end is not None and time.monotonic() > end:
                    raise TimeoutError(f"a cell ran longer than {timeout_s} s") from None
                continue
            if message["parent_header"].get("msg_id") != message_id:
                continue
            content = message["content"]
            if message["msg_type"] == "status" and content["execution_state"] == "idle":
                return result
            if message["msg_type"] == "clear_output":
                # Colab's page clears what has the tags, of which nothing here has any.
                is_all = not content.get("output_tags") or "colab" not in self._names()
                is_clearing = is_all or is_clearing
                continue
            if is_clearing and message["msg_type"] not in {"status", "execute_input"}:
                result, is_clearing = CellResult(cleared=result.cleared + 1), False
            _collect(result, message["msg_type"], content)
            if on_text and message["msg_type"] == "stream":
                on_text(content["text"])

    def wait_for_text(self, message_id: str, text: str, *, timeout_s: float = 300) -> None:
        """Waits until a running cell has printed a text; what it printed so far is consumed."""
        shown: list[str] = []

        def look(part: str) -> None:
            shown.append(part)
            if text in "".join(shown):
                raise _SeenError

        try:
            self.finish(message_id, timeout_s=timeout_s, on_text=look)
        except _SeenError:
            return
        msg = f"the cell ended without printing {text!r}: {''.join(shown)}"
        raise CellError(msg)

    def close(self) -> None:
        self._client.stop_channels()
        self._client.context.destroy(linger=0)
        # Killed by now, and what started it on the machine ends after it.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._log.close()


def _collect(result: CellResult, kind: str, content: Mapping[str, Any]) -> None:
    match kind:
        case "stream":
            name = content["name"]
            setattr(result, name, getattr(result, name) + content["text"])
        case "update_display_data":
            result.updates.append(content["data"])
        case "execute_result" | "display_data":
            result.data.append(content["data"])
            if kind == "execute_result":
                result.result = content["data"].get("text/plain", "")
        case "error":
            result.error = f"{content['ename']}: {content['evalue']}"
            result.traceback = _plain("\n".join(content["traceback"]))


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
