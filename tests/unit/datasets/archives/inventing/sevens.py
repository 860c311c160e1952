"""7z archives of invented files, packed by 7-Zip itself in every way it has."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

from tests.unit.datasets.archives.inventing.members import Invented, members_of, told

_METHODS = (
    *("LZMA2", "LZMA", "PPMd", "BZip2", "Deflate", "Copy", "LZMA2:d=64k"),
    *("Delta:4", "Delta:1", "BCJ", "ARM", "PPC", "SPARC"),
)
_FILTERS = ("Delta", "BCJ", "ARM", "PPC", "SPARC")


def invented_7z(number: int, folder: Path) -> Invented:
    """Writes files into a folder, packs them, and returns the archive."""
    draw = random.Random(number)
    out = Invented(number, ".7z")
    (folder / "in").mkdir(parents=True)
    for member in members_of(draw):
        if b"\\" in member.name:
            continue  # a slash to py7zr
        path = Path(os.path.normpath(b"/" + member.name).decode("utf-8").lstrip("/"))
        target = folder / "in" / path
        try:
            if member.kind == "folder":
                target.mkdir(parents=True, exist_ok=True)
            elif member.kind == "file":
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(member.data)
                target.chmod(member.mode & 0o777 | 0o400)
                os.utime(target, (member.time_s, member.time_s))
            elif member.kind == "symlink" and b".." not in member.link:  # a danger to 7z
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(os.fsdecode(member.link))
        except OSError:
            continue  # what this disk does not take as a name
        out.story.append(told(member))
    method = draw.choice(_METHODS)
    options = [f"-m0={method}"]
    if method.partition(":")[0] in _FILTERS:
        options.append("-m1=" + draw.choice(("LZMA2", "LZMA", "Deflate")))
    options.append(draw.choice(("-ms=on", "-ms=off", "-ms=3f")))
    options.append(draw.choice(("-mx=1", "-mx=5", "-mx=9")))
    options.append(draw.choice(("-mhc=on", "-mhc=off")))
    if draw.random() < 0.3:
        options.append("-mtc=on")
    out.story.append(" ".join(options))
    archive = folder / "packed.7z"
    subprocess.run(
        ["7z", "a", "-y", "-snl", *options, archive, "."],
        cwd=folder / "in",
        check=True,
        stdout=subprocess.DEVNULL,
    )
    out.data = archive.read_bytes()
    return out
