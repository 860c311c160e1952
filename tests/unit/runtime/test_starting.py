"""Programs are started through one door, which closes nothing on their way."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import colabkit
from colabkit.runtime import run_to_end, start_program

STARTERS = {"Popen", "run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"}
OPEN = "import os, sys; print(*(int(os.path.exists(f'/proc/self/fd/{n}')) for n in sys.argv[1:]))"


def test_nothing_else_starts_a_program():
    root = Path(colabkit.__file__).parent
    found = [
        f"{path.relative_to(root)}:{node.lineno}"
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and (
            (node.func.value.id == "subprocess" and node.func.attr in STARTERS)
            or (node.func.value.id == "os" and node.func.attr in {"system", "popen"})
            or (node.func.value.id == "os" and node.func.attr.startswith(("spawn", "posix_spawn")))
        )
    ]
    assert [each.partition(":")[0] for each in found] == ["runtime/starting.py"], found


def test_python_closes_nothing_before_the_program_begins(monkeypatch):
    asked = {}
    monkeypatch.setattr(subprocess, "Popen", lambda command, **options: asked.update(options))
    with Path(os.devnull).open() as file:
        start_program(["true"], pass_fds=[file.fileno()])
    assert asked["close_fds"] is False
    assert "pass_fds" not in asked  # with them Python closes all others


def test_a_program_has_the_files_it_is_lent_and_no_others(tmp_path):
    with (tmp_path / "lent").open("wb") as lent, (tmp_path / "own").open("wb") as own:
        numbers = lent.fileno(), own.fileno()
        command = [sys.executable, "-S", "-c", OPEN, *map(str, numbers)]
        ended = run_to_end(
            command, timeout_s=300, pass_fds=numbers[:1], stdout=subprocess.PIPE, text=True
        )
        again = run_to_end(command, timeout_s=300, stdout=subprocess.PIPE, text=True)
        assert not any(os.get_inheritable(number) for number in numbers)
    assert ended.stdout.split() == ["1", "0"]
    assert again.stdout.split() == ["0", "0"]


def test_one_that_cannot_be_started_leaves_nothing_inheritable(tmp_path):
    with (tmp_path / "lent").open("wb") as lent:
        with pytest.raises(FileNotFoundError):
            start_program([tmp_path / "nothing"], pass_fds=[lent.fileno()])
        assert not os.get_inheritable(lent.fileno())


def test_one_whose_time_is_up_is_killed():
    with pytest.raises(subprocess.TimeoutExpired):
        run_to_end([sys.executable, "-S", "-c", "import time; time.sleep(3600)"], timeout_s=0.5)
