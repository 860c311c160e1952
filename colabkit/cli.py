"""The command line: ``python -m colabkit`` demo, doctor, checkpoints, dataset, pack, run, keep."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import colabkit
from colabkit.errors import ArgumentError, ColabKitError, ScriptError
from colabkit.notebook import card_text, say

if TYPE_CHECKING:
    from colabkit.checkpoint import CheckpointInfo

_COMMAND_HELP = "a script, a program, or -m MODULE, with its arguments"
_STOPPED = 130  # as a shell tells of Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: The words after the program's name; those of this process by default.

    Returns:
        0 when all went well, 1 when not, 2 without a command, 130 when it was interrupted; wrong
        usage ends the process with 2.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words:
        _parser().print_help(sys.stderr)
        return 2
    status = _run(_parser().parse_args(_with_border(words)))
    try:
        # What still waits in the buffer may fail as well, and at Python's own end says so itself.
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"The output could not be written: {error.strerror}.", file=sys.stderr)
        return 1
    return status


def _with_border(words: list[str]) -> list[str]:
    """Returns the words with "--" before the command to run: its options are not ours."""
    if words[:1] != ["run"]:
        return words
    place = 1
    while place < len(words) and words[place].startswith("--") and words[place] != "--":
        if words[place] == "--help":
            return words
        place += 1 if "=" in words[place] else 2
    return (
        words
        if words[place : place + 1] in ([], ["-h"])
        else [*words[:place], "--", *words[place:]]
    )


def _run(options: argparse.Namespace) -> int:
    try:
        return int(options.run(options))
    except ColabKitError as error:
        if getattr(options, "as_json", False):
            say(json.dumps({"error": error.message, "hint": error.hint}))
        else:
            print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return _STOPPED
    except BrokenPipeError:
        return 1  # who reads this, as `head` does, has seen enough


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m colabkit", description="Training that goes on where it stopped."
    )
    parser.add_argument("--version", action="version", version=colabkit.__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = _command(
        commands,
        "demo",
        "train, kill the training, and see it go on",
        example="demo --framework keras",
    )
    demo.add_argument(
        "--framework", choices=["torch", "keras"], default="torch", help="torch by default"
    )
    demo.add_argument(
        "--backend", choices=["tensorflow", "jax"], default="tensorflow", help="of Keras"
    )
    demo.set_defaults(run=_run_demo)
    doctor = _command(
        commands,
        "doctor",
        "say whether training can start here",
        example="doctor MyDrive/runs/cats --gpu",
    )
    doctor.add_argument(
        "ckpt_dir", metavar="DIR", nargs="?", help="look at this run folder as well"
    )
    doctor.add_argument("--gpu", action="store_true", help="no GPU is a failure")
    doctor.add_argument("--json", dest="as_json", action="store_true", help="print JSON")
    doctor.set_defaults(run=_run_doctor)
    listing = _command(
        commands,
        "checkpoints",
        "list the checkpoints of a run folder",
        example="checkpoints MyDrive/runs/cats --verify",
    )
    listing.add_argument("ckpt_dir", metavar="DIR", help="the run folder")
    listing.add_argument("--verify", action="store_true", help="read and check every byte")
    listing.add_argument("--json", dest="as_json", action="store_true", help="print JSON")
    listing.set_defaults(run=_show_checkpoints)
    making = _command(
        commands,
        "dataset",
        "bring a dataset to this disk, verified",
        example="dataset MyDrive/cats.zip /content/cats",
    )
    making.add_argument("source", metavar="SOURCE", help="an archive, a folder, a URL, a pattern")
    making.add_argument("dest", metavar="DEST", nargs="?", help="the folder to make")
    making.add_argument(
        "--members", metavar="NAME", action="append", help="take only these; may be repeated"
    )
    making.add_argument("--sha256", metavar="HEX", help="refuse any other archive")
    making.add_argument("--password-from", metavar="FILE", help="of an encrypted archive")
    making.add_argument("--refresh", action="store_true", help="make it anew")
    making.set_defaults(run=_make_dataset)
    packing = _command(
        commands,
        "pack",
        "pack a folder of small files into one archive",
        example="pack /content/cats MyDrive/cats.zip",
    )
    packing.add_argument("folder", metavar="FOLDER", help="the folder to pack")
    packing.add_argument("archive", metavar="ARCHIVE", help="the zip archive to write")
    packing.set_defaults(run=_pack)
    running = _command(
        commands,
        "run",
        "run a command, and keep what it writes",
        example="run --keep MyDrive/exp torchrun train.py --epochs 3",
        usage="python -m colabkit run [-h] [--keep TO] [--project FOLDER] COMMAND ...",
    )
    running.add_argument("--keep", metavar="TO", help="where what it writes is kept")
    running.add_argument("--project", metavar="FOLDER", help="the folder that it works in")
    running.add_argument("words", metavar="COMMAND", nargs=argparse.REMAINDER, help=_COMMAND_HELP)
    running.set_defaults(run=_run_command)
    keeping = _command(
        commands,
        "keep",
        "bring a folder back, and keep it while a command runs",
        example="keep runs/exp MyDrive/exp -- python train.py",
        usage="python -m colabkit keep [-h] FOLDER TO [-- COMMAND ...]",
    )
    keeping.add_argument("folder", metavar="FOLDER", help="the folder, on this machine's disk")
    keeping.add_argument("to", metavar="TO", help="where it is kept: on Drive, in a bucket, ...")
    keeping.add_argument(
        "words", metavar="COMMAND", nargs=argparse.REMAINDER, help="without one, it is only brought"
    )
    keeping.set_defaults(run=_keep)
    return parser


def _command(
    commands: Any, name: str, does: str, *, example: str, usage: str | None = None
) -> argparse.ArgumentParser:
    """Adds a command whose help says what it does, and shows it done."""
    made: argparse.ArgumentParser = commands.add_parser(
        name,
        help=does,
        description=f"{does[:1].upper()}{does[1:]}.",
        epilog=f"Example:\n  python -m colabkit {example}",
        usage=usage,
        # An example is copied as a whole: its lines are not broken.
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return made


def _run_demo(options: argparse.Namespace) -> int:
    demo = importlib.import_module("colabkit.demo")
    return int(demo.main(["--framework", options.framework, "--backend", options.backend]))


def _run_doctor(options: argparse.Namespace) -> int:
    doctor = importlib.import_module("colabkit.doctor")
    examination = doctor.examine(options.ckpt_dir, needs_gpu=options.gpu)
    if options.as_json:
        say(json.dumps(examination.json_value(), indent=2))
    else:
        say(card_text(examination.card))
    return 0 if examination.can_start else 1


def _make_dataset(options: argparse.Namespace) -> int:
    password = None
    if options.password_from is not None:
        # On the command line everybody on the machine could read it.
        password = _read_password(Path(options.password_from))
    folder = colabkit.dataset(
        options.source,
        options.dest,
        members=options.members,
        sha256=options.sha256,
        password=password,
        refresh=options.refresh,
    )
    say(str(folder))
    return 0


def _read_password(path: Path) -> bytes:
    try:
        return path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        message = f"The password could not be read from {path}: {error.strerror}."
        hint = "Pass --password-from the path of a text file that holds it."
        raise ArgumentError(message, argument="password", hint=hint) from error


def _pack(options: argparse.Namespace) -> int:
    colabkit.pack(options.folder, options.archive)
    return 0


def _run_command(options: argparse.Namespace) -> int:
    words = _command_of(options)
    return _status_of(lambda: colabkit.run(*words, keep=options.keep, project=options.project))


def _keep(options: argparse.Namespace) -> int:
    words = _command_of(options)
    # The folder is named from where one stands, and so is what a script below it writes.
    here = Path.cwd().resolve()
    script = next((word for word in words if word.endswith(".py")), ".")
    project = here if (here / script).resolve().is_relative_to(here) else None
    with colabkit.keep(options.folder, options.to):
        return _status_of(lambda: colabkit.run(*words, project=project)) if words else 0


def _command_of(options: argparse.Namespace) -> list[str]:
    words: list[str] = options.words
    while words[:1] == ["--"]:
        words = words[1:]
    return words


def _status_of(call: Callable[[], object]) -> int:
    try:
        call()
    except ScriptError as error:
        print(error, file=sys.stderr)
        # A shell tells of a signal by 128 and its number.
        return error.returncode if error.returncode > 0 else 128 - error.returncode
    return 0


def _show_checkpoints(options: argparse.Namespace) -> int:
    found = colabkit.checkpoints(options.ckpt_dir, verify=options.verify)
    if options.as_json:
        say(json.dumps([_json_value(info) for info in found], indent=2))
    elif not found:
        say(f"{options.ckpt_dir} holds no checkpoint.")
    else:
        say(repr(found))
    return 1 if not found or any(info.problem for info in found) else 0


def _json_value(info: CheckpointInfo) -> dict[str, Any]:
    names = ("name", "step", "epoch", "batch", "nbytes", "is_best", "problem")
    return {
        **{name: getattr(info, name) for name in names},
        "saved_at": info.saved_at.isoformat(),
        "metrics": dict(info.metrics),
        "weights_files": [str(path) for path in info.weights_files],
    }
