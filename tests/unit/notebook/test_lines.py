"""What a run says where nothing can be drawn over: in a pipe, and on a dumb terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[3]
_RUN = """
import sys
import numpy as np
import colabkit

run = colabkit.Run(sys.argv[1], state={"w": np.zeros(3)}, save_every=1)
for number in run.items(range(4)):
    run.state = {"w": run.state["w"] + number}
    run.log(loss=number)
"""


def _in_a_pipe(command: list[str]) -> str:
    run = subprocess.run(
        command,
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    return run.stdout


def _on_a_dumb_terminal(command: list[str]) -> str:
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "dumb"}
    with subprocess.Popen(command, cwd=_ROOT, stdout=theirs, stderr=theirs, env=environ) as process:
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # nobody holds the other end any more
            while more := os.read(ours, 4096):
                said += more
        os.close(ours)
        assert process.wait() == 0, said
    return said.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("show", [_in_a_pipe, _on_a_dumb_terminal])
def test_lines_are_written_where_nothing_can_be_drawn_over(show: Any, tmp_path: Path) -> None:
    said = show([sys.executable, "-c", _RUN, str(tmp_path / "run")])
    assert not {"\r", "\x1b"} & set(said)
    lines = said.splitlines()
    assert any(line.startswith("Resume is exact for state") for line in lines)
    assert any("step 4" in line and line.endswith(".") for line in lines)
