"""The first call of a session loads no more than it needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.unit.datasets.sources import make_tar, make_zip

FILES = {"cats/1.txt": b"meow", "dogs/2.txt": b"woof" * 999}
PROGRAM = """
import sys
# Loading it takes longer than unpacking a thousand small files.
sys.modules["numpy"] = None
import colabkit
for archive in sys.argv[1:]:
    colabkit.dataset(archive, archive + "-unpacked", progress=False)
"""


def test_zips_and_tars_are_unpacked_without_numpy(tmp_path):
    archives = [
        make_zip(tmp_path / "a.zip", FILES),
        make_tar(tmp_path / "a.tar.gz", FILES, mode="w:gz"),
    ]
    environ = {**os.environ, "COLABKIT_CACHE": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", PROGRAM, *archives], check=True, env=environ)
    for archive in archives:
        made = Path(f"{archive}-unpacked")
        assert {name: (made / name).read_bytes() for name in FILES} == FILES
