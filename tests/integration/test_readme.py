"""README and docs/, in both languages: code runs, commands and links exist, they say the same.

Every block marked ``python`` is run on Colab's double, from top to bottom, each section in a
namespace of its own. Blocks marked ``python before`` show other people's code and are not run.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from colabkit import cli
from tests.abilities import package
from tests.colab_vm import Cloud, Machine
from tests.tiny_wheels import tiny_wheel

REPOSITORY = Path(__file__).parents[2]
README = "README.md"
# For those who carry colabkit on; in English alone.
DEVELOPERS = ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "docs/format.md"]
PAGES = sorted(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md"))
ENGLISH = [README, *(page for page in PAGES if page not in DEVELOPERS)]
CHINESE = [
    "README.zh-CN.md" if name == README else name.replace("docs/", "docs/zh-CN/")
    for name in ENGLISH
]
DOCUMENTS = [*ENGLISH, *CHINESE]
DECISIONS = sorted(f"docs/decisions/{p.name}" for p in (REPOSITORY / "docs/decisions").glob("*.md"))
PAIRS = [*zip(ENGLISH, CHINESE, strict=True)]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
RELEASE = PROJECT.get("urls", {})
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^(#+) (.*)$", re.MULTILINE)
MODEL = """
import torch
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
x, y = torch.randn(64, 8), torch.randint(0, 3, (64,))
data = torch.utils.data.TensorDataset(x, y)
loader = torch.utils.data.DataLoader(data, batch_size=16, shuffle=True)
loss_fn = torch.nn.functional.cross_entropy
"""
LIGHTNING = """
class LitModel(torch.nn.Sequential):
    def training_step(self, batch, batch_idx):
        return loss_fn(self(batch[0]), batch[1])
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())
lit_model = LitModel(*model)
"""
# Models of transformers are called with a batch's names and give an object that has a loss.
TRANSFORMERS = """
import types
class Classifier(torch.nn.Linear):
    def forward(self, input_ids, labels):
        logits = super().forward(input_ids)
        return types.SimpleNamespace(loss=loss_fn(logits, labels), logits=logits)
model = Classifier(8, 3)
tokenized = [{"input_ids": one, "labels": label} for one, label in zip(x, y)]
collator = torch.utils.data.default_collate
"""
KERAS = """
import keras, numpy as np
model = keras.Sequential([keras.layers.Dense(3, activation="softmax")])
model.compile("adam", "sparse_categorical_crossentropy")
x, y = np.random.rand(100, 8).astype("float32"), np.random.randint(0, 3, 100)
"""
# What a reader of these sections has already, by their headings.
READERS_OWN = {
    "Plain PyTorch": MODEL,
    "Lightning": MODEL + LIGHTNING,
    "Hugging Face Trainer": MODEL + TRANSFORMERS,
    "Keras' own fit": KERAS,
}


@dataclasses.dataclass(frozen=True)
class Section:
    """What stands between two headings."""

    level: int
    title: str
    text: str

    def blocks(self, kind: str) -> list[str]:
        return [code for marked, code in BLOCK.findall(self.text) if marked == kind]


def read(name: str | Path) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def sections(name: str | Path) -> list[Section]:
    # A comment in a shell or in Python looks like a heading.
    text = read(name)
    hidden = BLOCK.sub(lambda block: "\0" * len(block[0]), text)
    heads = [*HEADING.finditer(hidden)]
    ends = [*(head.start() for head in heads[1:]), len(text)]
    return [
        Section(len(head[1]), head[2], text[head.end() : end])
        for head, end in zip(heads, ends, strict=True)
    ]


def prose(name: str) -> str:
    return BLOCK.sub("", read(name))


def commands(name: str) -> Iterator[list[str]]:
    for marked, code in BLOCK.findall(read(name)):
        if marked == "console":
            yield from map(shlex.split, code.splitlines())


def three_cells() -> list[str]:
    """Returns what README begins with: to install, to set up, to train."""
    section = next(section for section in sections(README) if section.blocks("python"))
    return section.blocks("python")


class FreshMachines:
    """Machines that have what Colab brings along, and no colabkit but what pip puts there.

    Args:
        cloud: Their Drive.
        index: A folder that stands for the index of packages.
    """

    def __init__(self, cloud: Cloud, index: Path) -> None:
        self._cloud = cloud
        self._index = index

    def start(self) -> Machine:
        own = {"PIP_INDEX_URL": self._index.as_uri(), "PIP_TARGET": "/content/site"}
        machine = self._cloud.machine(
            environ=own,
            files={"/content/site/.keep": ""},
            visible=[self._index],
        )
        # A repository is installed on the host, this or another: none is found from here on.
        code = """
import os, sys
others = [p for p in sys.path if not os.path.isdir(os.path.join(p, "colabkit"))]
sys.path[:] = ["/content/site", *others]
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "")]
"""
        machine.run_cell(code).check()
        return machine


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The file that `make wheel` writes."""
    folder = tmp_path_factory.mktemp("dist")
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([sys.executable, *build, "-w", folder, REPOSITORY], check=True)
    (made,) = folder.glob("colabkit-*.whl")
    return made


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> Path:
    """Has what Colab lacks; and newer ones of what it has, which are not to be taken."""
    folder = tmp_path_factory.mktemp("index")
    # A stand-in that cannot be used: where it is so, the standard library does its work.
    wheels = [tiny_wheel(folder / "isal", "isal", "1.7.1")]
    for name in ("numpy", "tqdm", "psutil", "safetensors", "xxhash", "fsspec", "filelock"):
        wheels.append(tiny_wheel(folder / name, name, "99.0"))
    other = "raise ImportError('another project of this name')"
    wheels.append(tiny_wheel(folder / "colabkit", "colabkit", "99.0", code=other))
    for wheel in wheels:
        link = f'<a href="{wheel.name}">{wheel.name}</a>'
        wheel.with_name("index.html").write_text(f"<!DOCTYPE html><html><body>{link}</body></html>")
    return folder


def test_the_first_three_cells_are_all_that_a_fresh_machine_needs(cloud, wheel, index):
    package("torch", "sklearn").require()
    install, setup, fit = three_cells()
    cloud.path(wheel.name).write_bytes(wheel.read_bytes())
    # An older one stays, and Drive names a copy so: neither can be installed beside the newest.
    cloud.path("colabkit-0.0.0-py3-none-any.whl").write_bytes(b"")
    cloud.path(wheel.name.replace(".whl", " (1).whl")).write_bytes(b"")
    for is_trained in (False, True):
        machine = FreshMachines(cloud, index).start()
        machine.run_cell(install).check()
        installed = machine.path("/content/site").glob("*.dist-info")
        names = {each.name.removesuffix(".dist-info") for each in installed}
        assert names == {wheel.name.removesuffix("-py3-none-any.whl"), "isal-1.7.1"}
        where = machine.run_cell("colabkit.__file__").check()
        assert where.result == "'/content/site/colabkit/__init__.py'"
        assert "mounted, /content/drive/MyDrive" in machine.run_cell(setup).check().result
        trained = machine.run_cell(fit).check()
        assert "20 epochs" in trained.result
        assert ("Restored as it ended, after epoch 20" in trained.stdout) is is_trained
        machine.drive.wait_until_uploaded()
        machine.kill()


def test_without_a_wheel_the_first_cell_says_in_one_sentence_what_to_do(cloud, tmp_path):
    shown = FreshMachines(cloud, tmp_path).start().run_cell(three_cells()[0])
    kind, _, sentence = shown.error.partition(": ")
    assert kind == "SystemExit"
    assert re.fullmatch(r"Put the wheel[^.]* top folder of your Drive[^.]*\.", sentence)


def test_a_release_is_what_the_first_cell_installs_where_there_is_one():
    wanted = RELEASE.get("Wheel", "--find-links /content/drive/MyDrive colabkit")
    assert wanted in three_cells()[0]


def test_every_block_runs_on_a_fresh_machine(cloud):
    package("torch", "keras", "sklearn").require()
    machine = cloud.machine()
    machine.run_cell("import colabkit; colabkit.setup()").check()
    ran = 0
    for section in (section for name in ENGLISH for section in sections(name)):
        for number, code in enumerate(section.blocks("python")):
            if number == 0:
                machine.run_cell("%reset -f").check()
                own = READERS_OWN.get(section.title, "")
                machine.run_cell("import colabkit\n" * bool(own) + own).check()
            machine.run_cell(code).check()
            ran += 1
    assert ran == sum(read(name).count("```python\n") for name in ENGLISH)


@pytest.mark.parametrize("names", PAIRS, ids=ENGLISH)
def test_both_have_the_same_headings_blocks_and_tables(names):
    english, chinese = map(sections, names)
    assert [section.level for section in chinese] == [section.level for section in english]
    for one, other in zip(english, chinese, strict=True):
        assert BLOCK.findall(other.text) == BLOCK.findall(one.text), other.title
        for mark in ("\n| ", "\n- ", "![", "]("):
            assert other.text.count(mark) == one.text.count(mark), (other.title, mark)


@pytest.mark.parametrize("names", PAIRS, ids=ENGLISH)
def test_both_have_the_same_figures_and_the_same_code_in_their_lines(names):
    for one, other in zip(*map(sections, names), strict=True):
        for pattern in (r"\d[\d,.]*\d|\d", r"`[^`\n]*`"):
            found = [sorted(re.findall(pattern, BLOCK.sub("", s.text))) for s in (one, other)]
            assert found[0] == found[1], other.title


def test_the_commands_are_told_where_one_begins_on_ones_own_machine():
    told = {tuple(words[:2]) for name in ENGLISH for words in commands(name)}
    assert told >= {("make", "demo"), ("make", "test"), ("pip", "install"), ("python", "-m")}


@pytest.mark.parametrize("name", DOCUMENTS)
class TestDocument:
    def test_names_only_commands_that_are_there(self, name):
        targets = re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
        for words in commands(name):
            match words:
                case ["make", target]:
                    assert target in targets
                case ["python", "-m", "colabkit", *rest]:
                    cli._parser().parse_args(rest)
                case ["torchrun", *rest]:
                    assert rest == ["--nproc-per-node=2", "train.py"]
                case _:
                    assert words == ["pip", "install", "."]
        for target in re.findall(r"`make (\w+)`", prose(name)):
            assert target in targets

    def test_names_only_benchmarks_that_are_there(self, name):
        figures = [s.text for s in sections(name) if "benchmarks.bench_NAME" in s.text]
        names = re.findall(r"^\| `(\w+)` \|", "".join(figures), re.MULTILINE)
        assert bool(names) == name.endswith("figures.md")
        for bench in names:
            if bench != "NAME":
                assert (REPOSITORY / f"benchmarks/bench_{bench}.py").is_file()

    def test_names_only_what_colabkit_has(self, name):
        import colabkit

        for public in re.findall(r"\bcolabkit\.([a-zA-Z_]\w*)\(", read(name)):
            assert public in colabkit.__all__


@pytest.mark.parametrize("name", [*DOCUMENTS, *DEVELOPERS, *DECISIONS])
def test_links_lead_to_files_and_headings_that_are_there(name):
    for target in re.findall(r"\]\(([^)]+)\)", prose(name)):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        there = (REPOSITORY / name).parent / file if file else REPOSITORY / name
        assert there.is_file()
        if anchor:
            anchors = {s.title.lower().replace(" ", "-") for s in sections(there)}
            assert anchor in anchors


@pytest.mark.parametrize("name", [*DEVELOPERS, *DECISIONS])
def test_what_developers_are_told_of_is_there(name):
    """Paths and modules in their pages follow what is moved."""
    targets = re.findall(r"^(\w[\w-]*):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    for words in commands(name):
        if words[0] == "make":
            assert words[1] in targets
        for word in words:
            if "/" in word and not word.startswith((".venv", "tests/unit/*")):
                assert (REPOSITORY / word.partition("::")[0]).exists(), word
    for path in re.findall(r"`((?:colabkit|tests|benchmarks|docs)/[\w./-]+)`", prose(name)):
        assert (REPOSITORY / path).exists(), path


def test_the_versions_are_those_that_are_pinned():
    extras = PROJECT["optional-dependencies"]
    newest, oldest = (
        {pin.partition("==")[0]: pin.partition("==")[2].split(".") for pin in pins}
        for pins in ([*extras["demo"], *extras["demo-keras"]], extras["oldest"])
    )
    names = {"PyTorch": "torch", "TensorFlow": "tensorflow-cpu", "Keras": "keras", "NumPy": "numpy"}
    for row, pins in (("newest", newest), ("oldest", oldest)):
        told = [
            f"{n} {'.'.join(pins[p][:2])}" for n, p in names.items() if len(pins.get(p, "")) > 1
        ]
        assert f"| {row}: {', '.join(told)} (" in read("docs/decisions/versions.md")
