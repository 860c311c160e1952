from __future__ import annotations

import pytest

from colabkit.errors import ArgumentError, StorageError
from colabkit.packages import read_request


def test_a_file_that_is_not_there_names_the_one_that_is_meant(tmp_path):
    (tmp_path / "requirements.txt").write_text("timm")
    with pytest.raises(StorageError, match=r"Did you mean 'requirements\.txt'"):
        read_request(tmp_path / "requirement.txt")


@pytest.mark.parametrize("line", ["-e .", "--hash=sha256:00", "--no-deps", "-r"])
def test_a_line_that_cannot_be_installed_is_named_with_its_number(tmp_path, line):
    (tmp_path / "requirements.txt").write_text(f"timm\n\n{line}\n")
    with pytest.raises(ArgumentError, match=r"Line 3 of .*requirements.txt"):
        read_request(str(tmp_path / "requirements.txt"))


def test_options_of_indexes_are_kept_apart(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text("--extra-index-url https://example.org/simple\ntimm # why\n--pre\n")
    request = read_request(str(path))
    assert request.requirements == ("timm",)
    assert request.options == ("--extra-index-url", "https://example.org/simple", "--pre")


def test_files_that_include_each_other_are_read_once(tmp_path):
    (tmp_path / "a.txt").write_text("-r b.txt\ntimm\n")
    (tmp_path / "b.txt").write_text("-r a.txt\neinops\n")
    assert read_request(str(tmp_path / "a.txt")).requirements == ("einops", "timm")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_is_read_in_whatever_encoding_windows_wrote_it(tmp_path, encoding):
    path = tmp_path / "requirements.txt"
    path.write_bytes("timm>=1\r\neinops # für später\r\n".encode(encoding))
    assert read_request(str(path)).requirements == ("timm>=1", "einops")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "requirements.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArgumentError, match="is no text file"):
        read_request(str(tmp_path / "requirements.txt"))
