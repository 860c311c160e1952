"""The machine's kind is told from what is really there."""

from __future__ import annotations

import pytest

from colabkit.runtime import Platform, detect_platform

COLAB_FILE = "var/colab/hostname"


@pytest.mark.parametrize(
    ("environ", "has_file", "expected"),
    [
        ({}, False, Platform.OTHER),
        ({}, True, Platform.COLAB),
        ({"COLAB_RELEASE_TAG": "release"}, False, Platform.OTHER),
        (
            {"COLAB_RELEASE_TAG": "release", "KAGGLE_KERNEL_RUN_TYPE": "Batch"},
            False,
            Platform.KAGGLE,
        ),
        ({"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, True, Platform.KAGGLE),
        ({"VERTEX_PRODUCT": "COLAB_ENTERPRISE"}, True, Platform.COLAB_ENTERPRISE),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, False, Platform.OTHER),
    ],
)
def test_the_platform_is_told_from_what_is_really_there(environ, has_file, expected, tmp_path):
    if has_file:
        (tmp_path / COLAB_FILE).parent.mkdir(parents=True)
        (tmp_path / COLAB_FILE).touch()
    assert detect_platform(environ, tmp_path) is expected


def test_only_a_users_own_machine_outlives_the_session():
    assert [p for p in Platform if not p.is_hosted] == [Platform.OTHER]
