"""A project's copy takes what changed, links what is large, and never loses what was made."""

from __future__ import annotations

import errno
import os
import shutil

import pytest

from colabkit.errors import StorageError
from colabkit.projects import trees
from colabkit.projects.copying import ProjectCopy
from colabkit.projects.finding_scripts import Script


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "drive/project"
    (folder / "data").mkdir(parents=True)
    (folder / "train.py").write_text("print('hi')")
    (folder / "data/x.csv").write_text("1,2")
    (tmp_path / "drive/shared").mkdir()
    (tmp_path / "drive/shared/labels.txt").write_text("cat")
    return folder


@pytest.fixture
def copy(project, tmp_path):
    return copy_of(project, tmp_path)


def copy_of(project, tmp_path):
    return ProjectCopy(Script(project / "train.py", project, project), tmp_path / "cache")


def test_a_second_time_only_what_changed_is_copied(copy, project, tmp_path):
    assert copy.bring().copied == 2
    assert (copy.project / "data/x.csv").read_text() == "1,2"
    assert copy_of(project, tmp_path).bring().copied == 0
    (project / "data/x.csv").write_text("1,2,3")
    (project / "data/y.csv").write_text("4")
    (project / "train.py").unlink()
    assert copy_of(project, tmp_path).bring().copied == 2
    assert (copy.project / "data/x.csv").read_text() == "1,2,3"
    assert not (copy.project / "train.py").exists()


def test_an_edit_of_the_same_size_is_seen_at_once_and_a_rounded_time_is_none(
    copy, project, tmp_path
):
    script = project / "train.py"
    os.utime(script, ns=(1, 1_700_000_000_987_654_321))
    copy.bring()
    os.utime(script, ns=(1, 1_700_000_000_987_000_000))
    assert copy_of(project, tmp_path).bring().copied == 0
    script.write_text("print('HI')")
    os.utime(script, ns=(1, 1_700_000_001_234_567_890))
    assert copy_of(project, tmp_path).bring().copied == 1
    assert (copy.project / "train.py").read_text() == "print('HI')"


def test_links_that_lead_nowhere_are_left_out(copy, project):
    (project / "gone").symlink_to(project / "nowhere")
    (project / "round").symlink_to(project / "round")
    (project / "data/gone").symlink_to("/nowhere")
    assert copy.bring().copied == 2
    assert not (copy.project / "gone").is_symlink()


def test_sibling_folders_are_where_relative_paths_expect_them(copy):
    copy.bring()
    assert (copy.project / "../shared/labels.txt").read_text() == "cat"


def test_a_document_of_googles_is_left_where_it_is(copy, project, tmp_path, monkeypatch):
    (project / "notes.gdoc").write_bytes(b"")
    copied = shutil.copyfile

    def as_on_drive(source, target):
        # github.com/googlecolab/colabtools/issues/2090
        if source.suffix == ".gdoc":
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), str(source))
        return copied(source, target)

    monkeypatch.setattr(shutil, "copyfile", as_on_drive)
    brought = copy.bring()
    assert (brought.copied, brought.files) == (2, 2)
    assert copy_of(project, tmp_path).bring().copied == 0
    assert (project / "notes.gdoc").exists()


def test_an_empty_folder_that_a_script_writes_into_is_there(copy, project):
    (project / "out/best").mkdir(parents=True)
    copy.bring()
    (copy.project / "out/best/model.bin").write_bytes(b"weights")
    assert copy.inputs().keys() == {"project/train.py", "project/data/x.csv"}


def test_a_folder_removed_in_the_project_is_removed_here(copy, project, tmp_path):
    (project / "runs/1/logs").mkdir(parents=True)
    (project / "runs/1/logs/a.txt").write_text("1")
    copy.bring()
    shutil.rmtree(project / "runs")
    copy_of(project, tmp_path).bring()
    assert not (copy.project / "runs").exists()


def test_what_is_large_is_read_where_it_lies(copy, project, monkeypatch):
    monkeypatch.setattr(trees, "FOLDER_FILES_MAX", 3)
    monkeypatch.setattr(trees, "FILE_BYTES_MAX", 1000)
    (project / "images").mkdir()
    for number in range(5):
        (project / f"images/{number}.png").write_bytes(b"x")
    (project / "weights.bin").write_bytes(bytes(2000))
    brought = copy.bring()
    assert brought.links == ("images", "weights.bin")
    assert (copy.project / "images").readlink() == project / "images"
    assert len(list((copy.project / "images").iterdir())) == 5
    (copy.project / "images/new.png").write_bytes(b"y")
    assert (project / "images/new.png").exists()


def stopped_before_the_end(copy, monkeypatch):
    """Brings a project as a call does that is interrupted when all is copied."""

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(copy, "_link_siblings", interrupted)
    with pytest.raises(KeyboardInterrupt):
        copy.bring()


def test_a_call_stopped_after_it_linked_a_folder_costs_nothing_there(
    copy, project, tmp_path, monkeypatch
):
    monkeypatch.setattr(trees, "FOLDER_FILES_MAX", 2)
    copy.bring()
    for number in range(3):
        (project / f"data/{number}.csv").write_text("1")
    stopped_before_the_end(copy_of(project, tmp_path), monkeypatch)
    assert copy_of(project, tmp_path).bring().links == ("data",)
    assert len(list((project / "data").iterdir())) == 4


@pytest.mark.parametrize("is_first", [True, False])
def test_what_a_stopped_call_copied_is_no_output_and_is_brought_anew(
    copy, project, tmp_path, monkeypatch, is_first
):
    if not is_first:
        copy.bring()
        (project / "train.py").write_text("print('edited')")
    (project / "new.py").write_text("1")
    stopped_before_the_end(copy_of(project, tmp_path), monkeypatch)
    (project / "train.py").write_text("print('edited again')")
    (project / "data/x.csv").unlink()
    copy_of(project, tmp_path).bring()
    assert (copy.project / "train.py").read_text() == "print('edited again')"
    assert not (copy.project / "data/x.csv").exists()
    assert sorted(path.name for path in project.iterdir()) == ["data", "new.py", "train.py"]


def test_output_not_saved_yet_is_not_given_up_for_a_link(copy, project, monkeypatch):
    copy.bring()
    (copy.project / "data/deep").mkdir()
    (copy.project / "data/deep/made.txt").write_text("here")
    monkeypatch.setattr(trees, "FOLDER_FILES_MAX", 3)
    for number in range(5):
        (project / f"data/{number}.txt").write_text("there")
    (project / "data/deep").write_text("a file stands in the way")
    with pytest.raises(StorageError, match=r"data/deep/made\.txt was made by the script"):
        copy.bring()
    assert (copy.project / "data/deep/made.txt").read_text() == "here"
