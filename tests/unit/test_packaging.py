"""What installing and importing colabkit does to a machine: next to nothing."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import colabkit

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "colabkit"
# What Colab does not have: it has to bring nothing else, and to be worth it by measurement.
LEAVES = {"isal"}
LISTS = sorted((REPOSITORY / "tests/data/colab-runtime").glob("pip-freeze*.txt"))
FULL_LISTS = sorted((REPOSITORY.parent / "shared/colab-runtime").glob("pip-freeze*.txt"))
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = sorted(PACKAGE.rglob("*.py"))
LINES_MAX = 450


def pins(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def closure(python: str) -> Iterator[Requirement]:
    """Yields colabkit's hard dependencies and all that these need on Linux."""
    environment = {
        "extra": "",
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }
    waiting, seen = list(PROJECT["dependencies"]), set()
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        yield requirement
        if requirement.name not in seen:
            seen.add(requirement.name)
            waiting += importlib.metadata.requires(requirement.name) or []


def test_there_is_a_list_for_every_kind_of_runtime():
    names = {path.name for path in LISTS}
    assert names == {f"pip-freeze.{k}.txt" for k in ("cpu", "gpu", "gpu.2026.07", "tpu")}


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("path", [*LISTS, *FULL_LISTS], ids=lambda p: f"{p.parts[-3]}-{p.name}")
def test_installing_changes_no_version_on_colab(path, python):
    present = pins(path)
    for requirement in closure(python):
        name = canonicalize_name(requirement.name)
        if name in LEAVES:
            assert not importlib.metadata.requires(name), f"{name} brings others with it"
            continue
        assert name in present, f"{name} would be installed"
        assert requirement.specifier.contains(present[name], prereleases=True), (
            f"{requirement} would replace {present[name]}"
        )


def test_the_first_cell_of_readme_installs_what_colab_lacks_and_nothing_else():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    leaves = [r for r in map(Requirement, PROJECT["dependencies"]) if r.name in LEAVES]
    lines = [line.split() for line in readme.splitlines() if "%pip install" in line]
    wanted = ["colabkit", *(f'"{leaf.name}{leaf.specifier}"' for leaf in leaves)]
    assert [next(w for w in line if w in wanted) for line in lines] == wanted
    assert all("--no-deps" in line for line in lines)


def test_the_short_lists_are_those_of_the_images():
    for path in FULL_LISTS:
        full = pins(path)
        copied = pins(REPOSITORY / "tests/data/colab-runtime" / path.name)
        assert copied == {name: full.get(name) for name in copied}


def test_installs_on_every_python_that_colab_has_had_and_may_get():
    specifier = Requirement(f"colabkit{PROJECT['requires-python']}").specifier
    assert all(specifier.contains(python) for python in ("3.11.0", "3.12.11", "3.13.9", "3.14.0"))
    assert not specifier.contains("3.10.18")


def run_python(code: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_loads_nothing_but_the_standard_library():
    code = """
import json, sys
before = set(sys.modules)
import colabkit
tops = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(tops - set(sys.stdlib_module_names) - {"colabkit"})))
"""
    assert json.loads(run_python(code)) == []


def test_importing_loads_no_module_of_training():
    code = "import json, sys, colabkit; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(run_python(code))
    assert [name for name in loaded if name.startswith("colabkit")] == [
        "colabkit",
        "colabkit.doors",
    ]


def test_torch_is_not_loaded_by_looking_at_names():
    code = """
import sys, colabkit
dir(colabkit), colabkit.errors, colabkit.History, colabkit.__version__
print("torch" in sys.modules)
"""
    assert run_python(code).strip() == "False"


@pytest.mark.parametrize("name", [n for n in colabkit.__all__ if n != "__version__"])
def test_every_public_name_says_what_it_is(name):
    thing = getattr(colabkit, name)
    assert inspect.getdoc(thing)
    assert name in dir(colabkit)
    if inspect.isclass(thing):
        for member, value in vars(thing).items():
            if inspect.isfunction(value) and not member.startswith("_"):
                assert inspect.getdoc(getattr(thing, member)), f"{name}.{member}"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        colabkit.fitt  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        colabkit.fitting.fitt  # noqa: B018


def test_the_version_is_that_of_the_distribution():
    assert PROJECT["dynamic"] == ["version"]
    assert colabkit.__version__ == importlib.metadata.version("colabkit")


def printing_lines(source: str) -> list[int]:
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [c.lineno for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]


def test_modules_are_short_and_print_only_where_people_look():
    long, printing = {}, {}
    for path in MODULES:
        source, place = path.read_text(encoding="utf-8"), path.relative_to(PACKAGE)
        if (lines := source.count("\n")) > LINES_MAX:
            long[str(place)] = lines
        if place.parts[0].removesuffix(".py") not in {"notebook", "cli", "demo"} and (
            found := printing_lines(source)
        ):
            printing[str(place)] = found
    assert not long
    assert not printing


def test_types_travel_with_the_package():
    assert (PACKAGE / "py.typed").is_file()


def test_the_oldest_set_is_what_the_bounds_promise():
    extras = PROJECT["optional-dependencies"]
    promised = [*PROJECT["dependencies"], *extras["torch"], *extras["tensorflow"]]
    floors = {}
    for requirement in map(Requirement, promised):
        (bound,) = requirement.specifier
        assert bound.operator == ">="
        floors[requirement.name] = Version(bound.version)
    floors["tensorflow-cpu"] = floors.pop("tensorflow")
    del floors["fsspec"]  # the clouds' packages that tests use ask for a newer one
    pinned = [Requirement(line) for line in extras["oldest"] if "==" in line]
    oldest = {r.name: Version(next(iter(r.specifier)).version) for r in pinned}
    assert floors.items() <= oldest.items()
