"""The notebooks, in real kernels on Colab's double: top to bottom, and again after a kill."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from notebooks.lives import NAMES, code_cells, document, machine_for, needs_of, run_all, two_lives
from notebooks.outputs import KILLS_ITSELF, WIDTH, badge_address, digest_of
from tests.abilities import SOAK, newer_package
from tests.colab_vm import MachineEndedError, Platform
from tests.integration.training import said_in

REPOSITORY = Path(__file__).parents[2]
RESUMED = re.compile(r"Resumed at epoch [\d,]+, step ([\d,]+)")
# Those that take longest are left to the long runs.
LONG = {"boosters", "hf_trainer", "kaggle_sessions", "lightning", "yolo"}
# What a notebook of somebody else's trainer says where it goes on, and when it is through.
OF_TRAINERS = {
    "hf_trainer": (r"goes on from \S+checkpoint-(\d+)", "24 rows in the log, up to step 120"),
    "lightning": (r"goes on from \S+\.ckpt, after (\d+) steps", "8 epochs, 456 steps"),
    "cloned_script": (r"begins with epoch ([2-9]|\d\d)\b", "60 epochs in the log, from 1,"),
    "yolo": (r"goes on from \S+last\.pt after (\d+) epochs", "12 epochs in results.csv"),
}


def test_the_gallery_and_the_site_name_all_notebooks():
    for page in ("docs/gallery.md", "docs/zh-CN/gallery.md"):
        named = re.findall(r"notebooks/(\w+)\.ipynb", (REPOSITORY / page).read_text())
        assert sorted(named) == NAMES
    site = (REPOSITORY / "docs/build_site.py").read_text()
    assert all(f'    "{name}": "' in site for name in NAMES)


def needs(name: str) -> None:
    newer_package(*needs_of(name).packages).require()


def lives_of(name: str) -> object:
    marks = [pytest.mark.soak, pytest.mark.needs(SOAK)] if name in LONG else []
    return pytest.param(name, marks=marks)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [lives_of(name) for name in NAMES if name != KILLS_ITSELF])
def test_a_notebook_goes_on_where_it_was_when_its_machine_was_taken_away(cloud, name):
    needs(name)
    shown = two_lives(cloud, name)
    said = [said_in(result) for result in shown]
    if name in OF_TRAINERS:
        went_on, is_through = OF_TRAINERS[name]
        (found,) = filter(None, (re.search(went_on, words) for words in said))
        assert int(found[1]) > 0
        assert any(is_through in words for words in said)
        return
    # What an earlier call has trained is found first, and nothing is left to do there.
    *_, resumed = filter(None, map(RESUMED.search, said))
    assert int(resumed[1].replace(",", "")) > 0
    assert any("resumed 1×" in result.result + result.stdout for result in shown)


def test_the_notebook_that_kills_itself_ends_with_the_same_bits(cloud):
    needs(KILLS_ITSELF)
    machine = machine_for(KILLS_ITSELF, cloud)
    with pytest.raises(MachineEndedError):
        run_all(machine, KILLS_ITSELF)
    machine.restart_kernel()  # as Colab does when a session has crashed
    shown = "".join(said_in(result) for result in run_all(machine, KILLS_ITSELF))
    assert "Went on after step" in shown
    assert "The same, bit for bit." in shown
    assert "exact: True" in shown


# In each run the others lose their machines, and the test above compares the bits.
@pytest.mark.soak
@pytest.mark.needs(SOAK)
def test_the_notebook_that_kills_itself_also_survives_the_loss_of_its_machine(cloud):
    needs(KILLS_ITSELF)
    machine = machine_for(KILLS_ITSELF, cloud)
    with pytest.raises(MachineEndedError):
        run_all(machine, KILLS_ITSELF)
    machine.kill()
    shown = "".join(said_in(r) for r in run_all(cloud.machine(), KILLS_ITSELF))
    went_on = re.search(r"Went on after step (\d+), in epoch \d+: exact", shown)
    assert int(went_on[1]) > 0
    assert "The same, bit for bit." in shown


@pytest.mark.parametrize("name", NAMES)
class TestNotebook:
    def test_is_valid_and_holds_what_its_code_shows_and_a_picture_of_the_panel(self, name):
        notebook = document(name)
        nbformat.validate(notebook)
        outputs = [each for cell in notebook.cells for each in cell.get("outputs", ())]
        if "colabkit" not in notebook.metadata:
            assert not outputs
            return
        assert notebook.metadata.colabkit.outputs_of == digest_of(name), "run make notebooks"
        assert all(each.output_type in {"stream", "display_data"} for each in outputs)
        pictured = [each.data for each in outputs if "image/png" in each.get("data", {})]
        assert pictured
        # A script in a process of its own has no panel.
        if name != "cloned_script":
            assert any(": finished, " in data["text/plain"] for data in pictured)
        assert not any("text/html" in each.get("data", {}) for each in outputs)

    def test_its_pictures_of_cards_and_panels_are_whole(self, name):
        for cell in document(name).cells:
            for each in cell.get("outputs", ()):
                picture = io.BytesIO(base64.b64decode(each.get("data", {}).get("image/png", "")))
                if picture.getbuffer() and (drawn := Image.open(picture)).width == WIDTH:
                    foot = drawn.convert("L").crop((0, drawn.height - 14, WIDTH, drawn.height))
                    assert foot.getextrema()[0] < 240, "the lower border is missing"

    def test_says_nothing_of_the_machine_it_was_saved_on(self, name):
        text = nbformat.writes(document(name))
        assert str(REPOSITORY) not in text
        assert str(Path.home() / ".") not in text.replace("/root/.cache", "")

    def test_begins_with_a_badge_that_leads_where_it_is_and_a_title(self, name):
        first = document(name).cells[0].source
        badge = r"\[!\[Open in (?:Colab|Kaggle)\]\(https://\S+\.svg\)\]\((\S+)\)\n\n# \S"
        assert re.match(badge, first)[1] == badge_address(name)

    def test_installs_in_its_first_cell_and_trains_in_a_folder_on_drive(self, name):
        codes = code_cells(name)
        is_first_of_all = f"```python\n{codes[0]}\n```" in (REPOSITORY / "README.md").read_text()
        assert is_first_of_all == (needs_of(name).platform is not Platform.KAGGLE)
        assert "colabkit.setup(" in codes[1]
        assert re.search(r'"MyDrive/runs/\w+"', "".join(codes))

    def test_names_only_notebooks_that_are_there(self, name):
        text = "".join(cell.source for cell in document(name).cells)
        for other in re.findall(r"`(\w+)\.ipynb`", text):
            assert other in NAMES


def test_badges_lead_to_the_repository_once_it_has_an_address(monkeypatch, tmp_path):
    from notebooks import outputs

    (tmp_path / "pyproject.toml").write_text(
        '[project]\n[project.urls]\nRepository = "https://github.com/o/colabkit"\n'
    )
    monkeypatch.setattr(outputs, "FOLDER", tmp_path / "notebooks")
    at = "github.com/o/colabkit/blob/main/notebooks"
    assert badge_address("yolo") == (
        "https://colab.research.google.com/github/o/colabkit/blob/main/notebooks/yolo.ipynb"
    )
    assert badge_address("kaggle_sessions") == (
        f"https://www.kaggle.com/kernels/welcome?src=https://{at}/kaggle_sessions.ipynb"
    )
