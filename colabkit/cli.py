"""The command line: ``python -m colabkit demo``, ``checkpoints DIR``, ``pack FOLDER ARCHIVE``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

import colabkit
from colabkit.errors import ColabKitError
from colabkit.notebook import say, text_table


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: The words after the program's name; those of this process by default.

    Returns:
        0 when all went well, 1 when not; wrong usage ends the process with 2.
    """
    options = _parser().parse_args(arguments)
    try:
        if options.command == "demo":
            demo = importlib.import_module("colabkit.demo")
            return int(demo.main(["--framework", options.framework]))
        if options.command == "pack":
            colabkit.pack(options.folder, options.archive)
            return 0
        return _show_checkpoints(options.ckpt_dir, verify=options.verify)
    except ColabKitError as error:
        print(error, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m colabkit", description="Training that goes on where it stopped."
    )
    parser.add_argument("--version", action="version", version=colabkit.__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="train, kill the training, and see it go on")
    demo.add_argument("--framework", choices=["torch"], default="torch")
    listing = commands.add_parser("checkpoints", help="list the checkpoints of a run folder")
    listing.add_argument("ckpt_dir", metavar="DIR", help="the run folder")
    listing.add_argument("--verify", action="store_true", help="read and check every byte")
    packing = commands.add_parser("pack", help="pack a folder of small files into one archive")
    packing.add_argument("folder", metavar="FOLDER", help="the folder")
    packing.add_argument("archive", metavar="ARCHIVE", help="the zip archive to write")
    return parser


def _show_checkpoints(ckpt_dir: str, *, verify: bool) -> int:
    found = colabkit.checkpoints(ckpt_dir, verify=verify)
    if not found:
        say(f"{ckpt_dir} holds no checkpoint.")
        return 1
    rows = [
        {
            "name": info.name,
            "epoch": info.epoch + 1,
            "step": info.step,
            "saved": f"{info.saved_at:%Y-%m-%d %H:%M:%S} UTC",
            "MB": info.nbytes / 1e6,
            "best": "yes" if info.is_best else "",
            "state": info.problem or ("whole" if verify else "listed"),
        }
        for info in found
    ]
    say(text_table(rows, columns=list(rows[0])))
    return 1 if any(info.problem for info in found) else 0
