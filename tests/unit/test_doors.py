"""Front doors that load on use: quick, and in step with what type checkers see."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

_PACKAGES = [
    "colabkit",
    "colabkit.datasets",
    "colabkit.fitting",
    "colabkit.notebook",
    "colabkit.runs",
    "colabkit.runtime",
    "colabkit.storage",
]
_FORMER = ("colabkit.fitting", "colabkit.runs")
_FIRST_CALL = """
import sys, zipfile, colabkit
with zipfile.ZipFile("a.zip", "w") as archive:
    archive.writestr("cats/1.txt", "one")
colabkit.dataset("a.zip", "out")
print(*sorted({name.partition(".")[0] for name in sys.modules}))
print(*sorted(name for name in sys.modules if name.startswith("colabkit.")))
"""


def _seen_by_type_checkers(package: str) -> dict[str, str]:
    """Returns where a front door's names come from, by its imports for type checkers."""
    file = importlib.import_module(package).__file__
    assert file is not None
    imports = [
        node
        for node in ast.walk(ast.parse(Path(file).read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package)
    ]
    found = {alias.name: str(node.module) for node in imports for alias in node.names}
    return {name: module for name, module in found.items() if name != "opened_on_use"}


@pytest.mark.parametrize("package", _PACKAGES)
def test_a_front_door_gives_what_type_checkers_see(package: str) -> None:
    door = importlib.import_module(package)
    seen = _seen_by_type_checkers(package)
    assert set(door.__all__) - {"__version__"} == seen.keys()
    for name, module in seen.items():
        where = importlib.import_module(module)
        assert getattr(door, name) is getattr(where, name)
    assert set(door.__all__) <= set(dir(door))


@pytest.mark.parametrize("package", _PACKAGES)
def test_a_name_that_is_not_there_is_an_attribute_error(package: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        importlib.import_module(package).nothing  # noqa: B018 - it raises


def test_a_first_dataset_loads_only_what_it_needs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FIRST_CALL],
        cwd=tmp_path,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    said, packages, modules = done.stdout.splitlines()
    assert "Unpacked 1 file" in said
    assert not {"tqdm", "psutil", "fsspec", "IPython", "matplotlib"} & set(packages.split())
    for part in ("datasets.packing", "notebook.panel", "runtime.device", "training"):
        assert f"colabkit.{part}" not in modules.split()


def test_scripts_that_know_the_former_address_find_everything_there():
    former, fitting, runs = map(importlib.import_module, ("colabkit.training", *_FORMER))
    for name in former.__all__:
        owner = fitting if name in fitting.__all__ else runs
        assert getattr(former, name) is getattr(owner, name)
    assert importlib.import_module("colabkit.training.torch_side").fit_module
