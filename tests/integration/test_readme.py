"""Both READMEs: their code runs, their commands and links exist, and they say the same.

Every block marked ``python`` is run on Colab's double, from top to bottom, each section in a
namespace of its own. Blocks marked ``python before`` show other people's code and are not run.
"""

from __future__ import annotations

import dataclasses
import io
import re
import shlex
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from colabkit import cli
from tests.abilities import package

REPOSITORY = Path(__file__).parents[2]
ENGLISH, CHINESE = "README.md", "README.zh-CN.md"
READMES = [ENGLISH, CHINESE]
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
    "colabkit": MODEL,
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


def read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def sections(name: str) -> list[Section]:
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


def digits_zip() -> bytes:
    arrays, archive = io.BytesIO(), io.BytesIO()
    draw = np.random.default_rng(0)
    x, y = draw.random((640, 64), dtype=np.float32), draw.integers(0, 10, 640)
    np.savez(arrays, x=x, y=y)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("train.npz", arrays.getvalue())
    return archive.getvalue()


def test_every_block_runs_on_a_fresh_machine(cloud):
    package("torch", "keras").require()
    cloud.path("digits.zip").write_bytes(digits_zip())
    machine = cloud.machine()
    machine.run_cell("import colabkit; colabkit.setup()").check()
    ran = 0
    for section in sections(ENGLISH):
        for number, code in enumerate(section.blocks("python")):
            if number == 0:
                machine.run_cell("%reset -f").check()
                own = READERS_OWN.get(section.title, "")
                machine.run_cell("import colabkit\n" * bool(own) + own).check()
            machine.run_cell(code).check()
            ran += 1
    assert ran == read(ENGLISH).count("```python\n")


def test_both_have_the_same_headings_blocks_and_tables():
    english, chinese = sections(ENGLISH), sections(CHINESE)
    assert [section.level for section in chinese] == [section.level for section in english]
    for one, other in zip(english, chinese, strict=True):
        assert BLOCK.findall(other.text) == BLOCK.findall(one.text), other.title
        for mark in ("\n| ", "\n- ", "![", "]("):
            assert other.text.count(mark) == one.text.count(mark), (other.title, mark)


def test_both_have_the_same_figures_and_the_same_code_in_their_lines():
    for one, other in zip(sections(ENGLISH), sections(CHINESE), strict=True):
        for pattern in (r"\d[\d,.]*\d|\d", r"`[^`\n]*`"):
            found = [sorted(re.findall(pattern, BLOCK.sub("", s.text))) for s in (one, other)]
            assert found[0] == found[1], other.title


@pytest.mark.parametrize("name", READMES)
class TestReadme:
    def test_names_only_commands_that_are_there(self, name):
        targets = re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
        seen = 0
        for words in commands(name):
            match words:
                case ["make", target]:
                    assert target in targets
                case ["python", "-m", "colabkit", *rest]:
                    cli._parser().parse_args(rest)
                case _:
                    assert words == ["pip", "install", "."]
            seen += 1
        assert seen
        for target in re.findall(r"`make (\w+)`", prose(name)):
            assert target in targets

    def test_names_only_benchmarks_that_are_there(self, name):
        figures = next(s for s in sections(name) if "benchmarks.bench_NAME" in s.text)
        names = re.findall(r"^\| `(\w+)` \|", figures.text, re.MULTILINE)
        assert names
        for bench in names:
            if bench != "NAME":
                assert (REPOSITORY / f"benchmarks/bench_{bench}.py").is_file()

    def test_links_lead_to_files_and_headings_that_are_there(self, name):
        for target in re.findall(r"\]\(([^)]+)\)", prose(name)):
            if target.startswith("#"):
                anchors = {s.title.lower().replace(" ", "-") for s in sections(name)}
                assert target[1:] in anchors
            else:
                assert (REPOSITORY / target).is_file()

    def test_names_only_what_colabkit_has(self, name):
        import colabkit

        for public in re.findall(r"\bcolabkit\.([a-zA-Z_]\w*)\(", read(name)):
            assert public in colabkit.__all__
