"""Which kind of machine the code runs on."""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from pathlib import Path


class Platform(enum.Enum):
    """A kind of machine, by what it can do for a notebook."""

    COLAB = "Google Colab"
    COLAB_ENTERPRISE = "Colab Enterprise"
    KAGGLE = "Kaggle"
    OTHER = "this machine"

    @property
    def is_hosted(self) -> bool:
        """Whether the machine, and its disk with it, is taken away at the end."""
        return self is not Platform.OTHER


def detect_platform(environ: Mapping[str, str] | None = None, root: str | Path = "/") -> Platform:
    """Returns the kind of machine this is.

    Args:
        environ: The environment; the process's own by default.
        root: Where the file system begins, for tests.

    Source:
        google.colab's own test for a hosted machine is the file ``/var/colab/hostname``;
        Kaggle's image sets ``COLAB_RELEASE_TAG`` too, so that variable says nothing.

    Example:
        >>> detect_platform({"KAGGLE_KERNEL_RUN_TYPE": "Interactive"})
        <Platform.KAGGLE: 'Kaggle'>
    """
    environ = os.environ if environ is None else environ
    if environ.get("KAGGLE_KERNEL_RUN_TYPE"):
        return Platform.KAGGLE
    if environ.get("VERTEX_PRODUCT") == "COLAB_ENTERPRISE":
        return Platform.COLAB_ENTERPRISE
    if (Path(root) / "var/colab/hostname").exists():
        return Platform.COLAB
    return Platform.OTHER
