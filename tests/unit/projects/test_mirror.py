"""A mirror copies what changed, links what is large, and never loses what was made."""

from __future__ import annotations

import errno
import os
import shutil

import pytest

from colabkit.errors import StorageError
from colabkit.projects import trees
from colabkit.projects.finding_scripts import Script
from colabkit.projects.mirror import Mirror


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
def mirror(project, tmp_path):
    return mirror_of(project, tmp_path)


def mirror_of(project, tmp_path, home=None):
    return Mirror(Script(project / "train.py", project, home or project), tmp_path / "cache")


def test_a_second_time_only_what_changed_is_copied(mirror, project, tmp_path):
    assert mirror.bring().copied == 2
    assert (mirror.project / "data/x.csv").read_text() == "1,2"
    assert mirror_of(project, tmp_path).bring().copied == 0
    (project / "data/x.csv").write_text("1,2,3")
    (project / "data/y.csv").write_text("4")
    (project / "train.py").unlink()
    assert mirror_of(project, tmp_path).bring().copied == 2
    assert (mirror.project / "data/x.csv").read_text() == "1,2,3"
    assert not (mirror.project / "train.py").exists()


def test_an_edit_of_the_same_size_is_seen_at_once_and_a_rounded_time_is_none(
    mirror, project, tmp_path
):
    script = project / "train.py"
    os.utime(script, ns=(1, 1_700_000_000_987_654_321))
    mirror.bring()
    os.utime(script, ns=(1, 1_700_000_000_987_000_000))
    assert mirror_of(project, tmp_path).bring().copied == 0
    script.write_text("print('HI')")
    os.utime(script, ns=(1, 1_700_000_001_234_567_890))
    assert mirror_of(project, tmp_path).bring().copied == 1
    assert (mirror.project / "train.py").read_text() == "print('HI')"


def test_links_that_lead_nowhere_are_left_out(mirror, project):
    (project / "gone").symlink_to(project / "nowhere")
    (project / "round").symlink_to(project / "round")
    (project / "data/gone").symlink_to("/nowhere")
    assert mirror.bring().copied == 2
    assert not (mirror.project / "gone").is_symlink()


def test_sibling_folders_are_where_relative_paths_expect_them(mirror):
    mirror.bring()
    assert (mirror.project / "../shared/labels.txt").read_text() == "cat"


def test_a_folder_that_a_script_makes_beside_its_project_goes_back_too(mirror, project, tmp_path):
    mirror.bring()
    results = mirror.project / "../results"
    results.mkdir()
    (results / "scores.csv").write_text("0.9")
    assert mirror.take_back().saved == ("../results/scores.csv",)
    assert mirror.take_back().saved == ()
    assert (project / "../results/scores.csv").read_text() == "0.9"
    mirror_of(project, tmp_path).bring()
    assert results.is_symlink()
    (results / "more.csv").write_text("1.0")
    assert (project / "../results/more.csv").exists()


def test_a_file_made_beside_a_project_overwrites_none_and_is_not_lost(
    mirror, project, tmp_path, monkeypatch
):
    mirror.bring()
    (mirror.project / "../results").mkdir()
    (mirror.project / "../results/scores.csv").write_text("0.9")
    (project / "../results").mkdir()
    (project / "../results/scores.csv").write_text("by hand")
    with monkeypatch.context() as without_drive:
        without_drive.setattr(Mirror, "take_back", lambda _: None)
        with pytest.raises(StorageError, match="not saved yet"):
            mirror_of(project, tmp_path).bring()
    mirror_of(project, tmp_path).bring()
    assert (project / "../results/scores.csv").read_text() == "by hand"
    assert (project / "../results/scores.from-run-1.csv").read_text() == "0.9"


def test_a_document_of_googles_is_left_where_it_is(mirror, project, tmp_path, monkeypatch):
    (project / "notes.gdoc").write_bytes(b"")
    copied = shutil.copyfile

    def as_on_drive(source, target):
        # github.com/googlecolab/colabtools/issues/2090
        if source.suffix == ".gdoc":
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), str(source))
        return copied(source, target)

    monkeypatch.setattr(shutil, "copyfile", as_on_drive)
    brought = mirror.bring()
    assert (brought.copied, brought.files) == (2, 2)
    assert mirror.take_back().saved == ()
    assert mirror_of(project, tmp_path).bring().copied == 0
    assert (project / "notes.gdoc").exists()


def test_an_empty_folder_that_a_script_writes_into_is_there(mirror, project):
    (project / "out/best").mkdir(parents=True)
    mirror.bring()
    (mirror.project / "out/best/model.bin").write_bytes(b"weights")
    assert mirror.take_back().saved == ("out/best/model.bin",)
    assert (project / "out/best/model.bin").read_bytes() == b"weights"


def test_a_folder_removed_in_the_project_is_removed_here(mirror, project, tmp_path):
    (project / "runs/1/logs").mkdir(parents=True)
    (project / "runs/1/logs/a.txt").write_text("1")
    mirror.bring()
    shutil.rmtree(project / "runs")
    mirror_of(project, tmp_path).bring()
    assert not (mirror.project / "runs").exists()


def test_what_is_large_is_read_where_it_lies(mirror, project, monkeypatch):
    monkeypatch.setattr(trees, "FOLDER_FILES_MAX", 3)
    monkeypatch.setattr(trees, "FILE_BYTES_MAX", 1000)
    (project / "images").mkdir()
    for number in range(5):
        (project / f"images/{number}.png").write_bytes(b"x")
    (project / "weights.bin").write_bytes(bytes(2000))
    brought = mirror.bring()
    assert brought.links == ("images", "weights.bin")
    assert (mirror.project / "images").readlink() == project / "images"
    assert len(list((mirror.project / "images").iterdir())) == 5
    (mirror.project / "images/new.png").write_bytes(b"y")
    assert (project / "images/new.png").exists()
    assert mirror.take_back().saved == ()


def test_new_and_changed_files_go_back_and_others_do_not(mirror, project):
    mirror.bring()
    (mirror.project / "out").mkdir()
    (mirror.project / "out/model.bin").write_bytes(b"weights")
    (mirror.project / "data/x.csv").write_text("changed")
    (mirror.project / "__pycache__").mkdir()
    (mirror.project / "__pycache__/train.pyc").write_bytes(b"")
    assert mirror.take_back().saved == ("data/x.csv", "out/model.bin")
    assert (project / "out/model.bin").read_bytes() == b"weights"
    assert (project / "data/x.csv").read_text() == "changed"
    assert mirror.take_back().saved == ()
    assert mirror.bring().copied == 0
    assert not (project / "__pycache__").exists()


def test_while_a_script_runs_only_files_that_rest_are_taken(mirror, project):
    mirror.bring()
    (mirror.project / "log.txt").write_text("one")
    assert mirror.take_back(only_settled=True).saved == ()
    (mirror.project / "log.txt").write_text("one two")
    assert mirror.take_back(only_settled=True).saved == ()
    assert mirror.take_back(only_settled=True).saved == ("log.txt",)


def test_a_file_edited_meanwhile_is_not_overwritten(mirror, project):
    mirror.bring()
    (mirror.project / "data/x.csv").write_text("from the script")
    (project / "data/x.csv").write_text("by hand, meanwhile")
    (project / "new.txt").write_text("by hand")
    (mirror.project / "new.txt").write_text("from the script")
    done = mirror.take_back()
    assert done.beside == {
        "data/x.csv": "data/x.from-run-1.csv",
        "new.txt": "new.from-run-1.txt",
    }
    assert (project / "data/x.csv").read_text() == "by hand, meanwhile"
    assert (project / "new.from-run-1.txt").read_text() == "from the script"


def test_what_a_killed_session_left_here_goes_back_first(mirror, project, tmp_path):
    mirror.bring()
    (mirror.project / "model.bin").write_bytes(b"weights")
    assert mirror_of(project, tmp_path).bring().copied == 0
    assert (project / "model.bin").read_bytes() == b"weights"


def test_output_that_could_not_be_saved_is_kept_until_it_can(mirror, project, tmp_path):
    mirror.bring()
    (mirror.project / "out").mkdir()
    (mirror.project / "out/model.bin").write_bytes(b"weights")
    (project / "out").write_text("a file stands in the way")
    assert list(mirror.take_back().unsaved) == ["out/model.bin"]
    (project / "out").unlink()
    mirror_of(project, tmp_path).bring()
    assert (project / "out/model.bin").read_bytes() == b"weights"


def test_what_the_script_made_and_removed_again_is_removed(mirror, project):
    mirror.bring()
    (mirror.project / "old.ckpt").write_bytes(b"1")
    mirror.take_back()
    assert (project / "old.ckpt").exists()
    (mirror.project / "old.ckpt").unlink()
    (mirror.project / "data/x.csv").unlink()
    mirror.take_back()
    assert not (project / "old.ckpt").exists()
    # It was there before the script, which has no say in it.
    assert (project / "data/x.csv").exists()


def test_a_project_elsewhere_keeps_its_output_where_that_belongs(project, tmp_path):
    home = tmp_path / "working/project"
    mirror = mirror_of(project, tmp_path, home)
    mirror.bring()
    (mirror.project / "out.txt").write_text("1")
    assert mirror.take_back().saved == ("out.txt",)
    (mirror.project / "out.txt").write_text("12")
    assert mirror.take_back().beside == {}
    assert sorted(path.name for path in home.iterdir()) == ["out.txt"]
    assert (home / "out.txt").read_text() == "12"
    assert not (project / "out.txt").exists()


def test_a_list_that_is_damaged_costs_no_output(mirror, project, tmp_path):
    mirror.bring()
    (mirror.root / "list.json").write_text("{")
    (mirror.project / "model.bin").write_bytes(b"weights")
    again = mirror_of(project, tmp_path)
    again.bring()
    again.take_back()
    assert (project / "model.bin").read_bytes() == b"weights"
    assert sorted(path.name for path in project.iterdir()) == ["data", "model.bin", "train.py"]


def test_a_folder_that_grew_is_linked_and_one_that_shrank_is_copied(mirror, project, monkeypatch):
    monkeypatch.setattr(trees, "FOLDER_FILES_MAX", 3)
    mirror.bring()
    for number in range(5):
        (mirror.project / f"data/{number}.txt").write_text("made here")
    mirror.take_back()
    assert mirror.bring().links == ("data",)
    assert (mirror.project / "data").is_symlink()
    for number in range(4):
        (project / f"data/{number}.txt").unlink()
    before = (project / "data/4.txt").stat().st_ino
    assert mirror.bring().links == ()
    assert not (mirror.project / "data").is_symlink()
    assert (mirror.project / "data/4.txt").read_text() == "made here"
    assert (project / "data/4.txt").stat().st_ino == before


def stopped_before_the_end(mirror, monkeypatch):
    """Brings a project as a call does that is interrupted when all is copied."""

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(mirror, "_link_siblings", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mirror.bring()


def test_a_call_stopped_after_it_linked_a_folder_costs_nothing_there(
    mirror, project, tmp_path, monkeypatch
):
    monkeypatch.setattr(trees, "FOLDER_FILES_MAX", 2)
    mirror.bring()
    for number in range(3):
        (project / f"data/{number}.csv").write_text("1")
    stopped_before_the_end(mirror_of(project, tmp_path), monkeypatch)
    assert mirror_of(project, tmp_path).bring().links == ("data",)
    assert len(list((project / "data").iterdir())) == 4


@pytest.mark.parametrize("is_first", [True, False])
def test_what_a_stopped_call_copied_is_no_output_and_is_brought_anew(
    mirror, project, tmp_path, monkeypatch, is_first
):
    if not is_first:
        mirror.bring()
        (project / "train.py").write_text("print('edited')")
    (project / "new.py").write_text("1")
    stopped_before_the_end(mirror_of(project, tmp_path), monkeypatch)
    (project / "train.py").write_text("print('edited again')")
    (project / "data/x.csv").unlink()
    mirror_of(project, tmp_path).bring()
    assert (mirror.project / "train.py").read_text() == "print('edited again')"
    assert not (mirror.project / "data/x.csv").exists()
    assert sorted(path.name for path in project.iterdir()) == ["data", "new.py", "train.py"]


def test_output_not_saved_yet_is_not_given_up_for_a_link(mirror, project, monkeypatch):
    mirror.bring()
    (mirror.project / "data/deep").mkdir()
    (mirror.project / "data/deep/made.txt").write_text("here")
    monkeypatch.setattr(trees, "FOLDER_FILES_MAX", 3)
    for number in range(5):
        (project / f"data/{number}.txt").write_text("there")
    (project / "data/deep").write_text("a file stands in the way")
    with pytest.raises(StorageError, match=r"data/deep/made\.txt was made by the script"):
        mirror.bring()
    assert (mirror.project / "data/deep/made.txt").read_text() == "here"


def test_a_mirror_that_was_deleted_takes_nothing_of_the_output_along(mirror, project, tmp_path):
    mirror.bring()
    (mirror.project / "model.bin").write_bytes(b"weights")
    mirror.take_back()
    shutil.rmtree(mirror.project)
    again = mirror_of(project, tmp_path)
    again.bring()
    again.take_back()
    assert (project / "model.bin").read_bytes() == b"weights"
    assert (again.project / "model.bin").read_bytes() == b"weights"
