"""A page that is closed while a run goes on: nothing waits for it, and it finds the newest."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

# Beyond what sender and receiver of a socket hold (1,000 messages each) before some are dropped.
UNREAD = 2_500
LIMIT_S = 600
CELL = """
import pathlib, time, colabkit
from colabkit.notebook import panel
from colabkit.runs import boundaries
# Every step is drawn: hours of a run, seen at once.
panel.REFRESH_PERIOD_S = panel._COST_SHARE = boundaries._LOOK_EVERY_S = 0.0
here = pathlib.Path({folder!r})
run = colabkit.Run(here / "run", save_every="1h")
for step in run.items(range(10**9)):
    run.log(loss=1.0 / (step + 1))
    (here / "step").write_text(str(step + 1))
    if step == 3:  # a panel is drawn between two steps
        while not (here / "seen").exists():
            time.sleep(0.01)
    if step == {unread}:
        (here / "unread").touch()
    if (here / "end").exists():
        break
print("through", run.step)
"""


class Page:
    """What a page knows of a running cell: outputs, and which of them a display id names."""

    def __init__(self) -> None:
        self.outputs: dict[str, dict[str, str]] = {}
        self.printed = ""
        self.kinds: set[str] = set()

    def take(self, message: dict[str, Any]) -> None:
        kind, content = message["msg_type"], message["content"]
        self.kinds.add(kind)
        if kind in {"display_data", "update_display_data"}:
            self.outputs[content["transient"]["display_id"]] = content["data"]
        elif kind == "stream":
            self.printed += content["text"]
        assert kind != "error", content

    def read(self, client: BlockingKernelClient, until: Callable[[dict[str, Any]], bool]) -> None:
        while True:
            message = client.get_iopub_msg(timeout=LIMIT_S)
            self.take(message)
            if until(message):
                return


@pytest.fixture
def kernel(tmp_path) -> Iterator[KernelManager]:
    with tempfile.TemporaryDirectory(dir="/tmp") as sockets:
        manager = KernelManager(transport="ipc", ip=f"{sockets}/kernel")
        manager.start_kernel(cwd=str(tmp_path))
        yield manager
        manager.shutdown_kernel(now=True)


def listening(manager: KernelManager) -> BlockingKernelClient:
    client = manager.client()
    client.start_channels(hb=False)
    return client


def is_panel(message: dict[str, Any]) -> bool:
    return message["msg_type"] in {"display_data", "update_display_data"}


def wait_for(path: Path) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not path.exists():
        assert time.monotonic() < end_s, f"{path} did not come"
        time.sleep(0.02)


def test_a_run_goes_on_without_its_page_which_finds_the_newest_panel(kernel, tmp_path):
    page = Page()
    client = listening(kernel)
    client.wait_for_ready(timeout=LIMIT_S)
    asked = client.execute(CELL.format(folder=str(tmp_path), unread=UNREAD))
    page.read(client, is_panel)
    # The page sleeps: it is connected, and reads nothing.
    (tmp_path / "seen").touch()
    wait_for(tmp_path / "unread")
    # It is closed, and another one opened in its place.
    client.stop_channels()
    client = listening(kernel)
    page.read(client, is_panel)
    (tmp_path / "end").touch()

    def is_over(message: dict[str, Any]) -> bool:
        is_idle = message["content"].get("execution_state") == "idle"
        return is_idle and message["parent_header"].get("msg_id") == asked

    page.read(client, is_over)
    client.stop_channels()
    last = int((tmp_path / "step").read_text())
    assert last > UNREAD
    assert page.printed == f"through {last}\n"
    (panel,) = page.outputs.values()
    assert f">step {last:,} " in panel["text/html"]
    assert ">ended<" in panel["text/html"]
    assert len(json.dumps(panel)) <= 25_000
    # Nothing asks the page for an answer.
    assert not any(kind.startswith(("comm_", "input_request")) for kind in page.kinds)
