"""The reference: what is public says what it takes, gives and raises, and its examples run."""

from __future__ import annotations

import builtins
import doctest
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import colabkit
from colabkit import errors
from tests.abilities import package, trainer

PACKAGE = Path(colabkit.__file__).parent
NAMES = [name for name in colabkit.__all__ if callable(getattr(colabkit, name))]
FUNCTIONS = [name for name in NAMES if inspect.isfunction(getattr(colabkit, name))]
CLASSES = [name for name in NAMES if inspect.isclass(getattr(colabkit, name))]
ERRORS = errors.__all__


def sections(text: str) -> dict[str, str]:
    """Returns the parts of a docstring under their headings."""
    parts = re.split(r"^(Args|Attributes|Returns|Raises|Example):\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def parameters(function: Any) -> set[str]:
    return {name.lstrip("*") for name in inspect.signature(function).parameters} - {"self"}


def documented(part: str) -> set[str]:
    return set(re.findall(r"^    \**(\w+):", part, flags=re.MULTILINE))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_says_what_it_takes_gives_and_raises(name):
    function = getattr(colabkit, name)
    parts = sections(inspect.getdoc(function))
    assert documented(parts.get("Args", "")) == parameters(function)
    assert "Example" in parts
    assert "Raises" in parts
    assert ("Returns" in parts) == (inspect.signature(function).return_annotation != "None")


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_says_what_it_takes_and_each_of_its_parts_what_it_is(name):
    kind = getattr(colabkit, name)
    parts = sections(inspect.getdoc(kind))
    assert "Example" in parts
    said = documented(parts.get("Args", "")) | documented(parts.get("Attributes", ""))
    if "__init__" in vars(kind):
        assert parameters(kind) <= said
    for part, value in vars(kind).items():
        if not part.startswith("_") and (callable(value) or isinstance(value, property)):
            assert inspect.getdoc(value), part


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_says_when_it_is_raised(name):
    assert inspect.getdoc(getattr(errors, name))


def test_raised_names_are_names_of_errors():
    for name in FUNCTIONS:
        raised = documented(sections(inspect.getdoc(getattr(colabkit, name)))["Raises"])
        assert raised <= {*ERRORS, *vars(builtins)}


def modules_with_examples() -> Iterator[str]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if ">>> " in path.read_text(encoding="utf-8"):
            parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
            yield ".".join(parts).removesuffix(".__init__")


class ExampleFinder(doctest.DocTestFinder):
    """Finds the examples of decorated functions too, which belong to the decorator's module."""

    def _from_module(self, module: Any, value: Any) -> bool:
        return super()._from_module(module, inspect.unwrap(value))


@pytest.mark.parametrize("name", [*modules_with_examples()])
def test_the_examples_of_a_module_run(name, tmp_path, monkeypatch):
    if ".integrations." in name:
        trainer(name.rpartition(".")[2]).require()
    elif "keras" in name:
        package("keras").require()
    elif "training" in name:
        package("torch").require()
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner()
    for test in ExampleFinder().find(module, extraglobs={"colabkit": colabkit}):
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_the_reference_is_rendered_with_every_public_name(tmp_path):
    package("pdoc").require()
    command = [sys.executable, "-m", "pdoc", "--docformat", "google", "-o", tmp_path, "colabkit"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert done.stderr == ""
    for file, names in {"colabkit.html": NAMES, "colabkit/errors.html": ERRORS}.items():
        page = (tmp_path / file).read_text(encoding="utf-8")
        assert [name for name in names if f'id="{name}"' not in page] == []
