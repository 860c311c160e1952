"""The command line."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

import colabkit
from colabkit import cli, demo


def test_an_unknown_command_gives_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["fly"])
    assert stop.value.code == 2
    assert "usage: python -m colabkit" in capsys.readouterr().err


def test_no_command_shows_what_there_is():
    done = subprocess.run(
        [sys.executable, "-m", "colabkit"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "usage: python -m colabkit" in done.stderr
    assert "say whether training can start here" in done.stderr


def test_version_is_told(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == colabkit.__version__


def test_demo_runs_the_demo(monkeypatch):
    monkeypatch.setitem(sys.modules, "colabkit.demo", SimpleNamespace(main=lambda argv: 3))
    assert cli.main(["demo"]) == 3


def test_an_interrupt_is_no_traceback(monkeypatch, capsys):
    def interrupted(argv):
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "colabkit.demo", SimpleNamespace(main=interrupted))
    assert cli.main(["demo"]) == 130
    assert capsys.readouterr().err == "Stopped.\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_seen_enough_is_no_traceback(tmp_path, unbuffered):
    command = [sys.executable, "-m", "colabkit", "checkpoints", str(tmp_path)]
    environ = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environ}
    with subprocess.Popen(command, **pipes) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_output_that_finds_no_room_is_one_sentence(tmp_path):
    command = [sys.executable, "-m", "colabkit", "checkpoints", str(tmp_path)]
    environ = {**os.environ, "PYTHONUNBUFFERED": ""}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, env=environ, check=False
        )
    assert done.stderr == b"The output could not be written: No space left on device.\n"
    assert done.returncode == 1


def test_a_missing_run_folder_is_one_sentence(tmp_path, capsys):
    assert cli.main(["checkpoints", str(tmp_path / "nowhere")]) == 1
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--verify"]])
def test_an_empty_run_folder_has_no_checkpoints(tmp_path, capsys, options):
    assert cli.main(["checkpoints", str(tmp_path), *options]) == 1
    assert capsys.readouterr().out == f"{tmp_path} holds no checkpoint.\n"


def test_checkpoints_come_as_json_too(tmp_path, capsys):
    assert cli.main(["checkpoints", str(tmp_path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == []
    assert cli.main(["checkpoints", str(tmp_path / "nowhere"), "--json"]) == 1
    assert "nowhere" in json.loads(capsys.readouterr().out)["error"]


def test_a_dataset_is_made_and_its_folder_is_the_last_line(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "cats.zip", "w") as archive:
        archive.writestr("a/1.txt", "meow")
        archive.writestr("b/2.txt", "woof")
    dest = tmp_path / "cats"
    assert cli.main(["dataset", str(tmp_path / "cats.zip"), str(dest), "--members", "a"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(dest)
    assert [path.name for path in dest.rglob("*.txt")] == ["1.txt"]


def test_a_dataset_that_is_not_there_is_one_sentence(tmp_path, capsys):
    assert cli.main(["dataset", str(tmp_path / "cats.zip")]) == 1
    assert "There is no" in capsys.readouterr().err


def test_a_password_that_cannot_be_read_is_one_sentence(tmp_path, capsys):
    secret = str(tmp_path / "secret")
    assert cli.main(["dataset", str(tmp_path / "a.zip"), "--password-from", secret]) == 1
    assert f"read from {secret}: No such file or directory." in capsys.readouterr().err


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/cats.zip", "memory://cats/run", "s3x://b/run"])
def test_a_doctor_asked_of_what_is_not_there_says_so_by_its_status(url, capsys):
    there = url.startswith("memory")
    assert cli.main(["doctor", url, "--json"]) == (0 if there else 1)


@pytest.mark.parametrize(
    ("options", "packages"),
    [
        ((), ["torch", "scikit-learn"]),
        (("--framework", "keras", "--backend", "jax"), ["keras", "jax", "scikit-learn"]),
    ],
)
def test_the_demo_says_what_to_install_by_names_that_the_index_has(
    options, packages, monkeypatch, capsys
):
    """Under colabkit's own name, extras and all, the public index has an unrelated project."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert demo.main(options) == 1
    said = f"The demo needs {' and '.join(packages)}. Run: pip install {' '.join(packages)}\n"
    assert capsys.readouterr().out == said


COMMANDS = ["demo", "doctor", "checkpoints", "dataset", "pack", "run", "keep"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example_that_it_takes(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    shown = capsys.readouterr().out
    prefix = "  python -m colabkit "
    (example,) = [line for line in shown.splitlines() if line.startswith(prefix)]
    words = example.removeprefix(prefix).split()
    assert cli._parser().parse_args(words).command == command == words[0]


def test_a_command_runs_and_what_it_writes_is_kept(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    project = tmp_path / "project"
    project.mkdir()
    (project / "train.py").write_text("import sys; open('a b', 'w').write(str(sys.argv[1:]))")
    monkeypatch.chdir(project)
    words = ["run", "--keep", str(tmp_path / "safe"), "train.py", "two words", "--keep", "x"]
    assert cli.main(words) == 0
    assert (tmp_path / "safe/latest/a b").read_text() == "['two words', '--keep', 'x']"
    assert "train.py ended after" in capfd.readouterr().out
    assert cli.main(["run", "-m", "train"]) == 0
    assert (project / "a b").read_text() == "[]"


def test_a_folder_is_kept_while_a_command_runs_and_its_status_is_the_commands(
    tmp_path, capfd, monkeypatch
):
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fails.py").write_text("open('out/a.txt', 'w').write('1'); raise SystemExit(3)")
    command = ["keep", "out", str(tmp_path / "safe"), "--", "python", "fails.py"]
    assert cli.main(command) == 3
    assert (tmp_path / "safe/latest/a.txt").read_text() == "1"
    assert "fails.py ended with status 3" in capfd.readouterr().err
    assert cli.main(["run", "python", "-c", "import os; os.kill(os.getpid(), 9)"]) == 137


@pytest.mark.parametrize("place", ["below", "elsewhere"])
def test_a_kept_command_writes_where_one_stands(place, tmp_path, monkeypatch):
    here, src = tmp_path / "here", (tmp_path / "here/src" if place == "below" else tmp_path / "src")
    for folder in (here, src):
        folder.mkdir(parents=True, exist_ok=True)
    (src / "train.py").write_text(
        "import pathlib, sys; out = pathlib.Path(sys.argv[1]); out.mkdir(exist_ok=True);"
        " (out / 'last.pt').write_text('1')"
    )
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(here)
    script, out = ("src/train.py", "out") if place == "below" else (src / "train.py", here / "out")
    command = ["keep", "out", str(tmp_path / "safe"), "--", "python", str(script), str(out)]
    assert cli.main(command) == 0
    assert (here / "out/last.pt").read_text() == "1"
