"""What setup() settled for the rest of the session; processes that are started inherit it."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

_DEVICE, _HOURS = "COLABKIT_DEVICE", "COLABKIT_SESSION_HOURS"
_CUBLAS = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def prefer_device(name: str, environ: MutableMapping[str, str] | None = None) -> None:
    """Makes a device the default of ``fit``: "cpu", "cuda", "mps"."""
    environ = os.environ if environ is None else environ
    environ[_DEVICE] = name
    # Read when CUDA starts, and only then: without it matrix products on a GPU are not repeatable.
    environ.setdefault(*_CUBLAS)


def preferred_device() -> str | None:
    """Returns the device that setup() settled on, None before it."""
    return os.environ.get(_DEVICE) or None


def expect_hours(hours: float) -> None:
    """Sets how many hours such a machine usually lasts."""
    os.environ[_HOURS] = str(hours)


def expected_limit_s() -> float | None:
    """Returns how many seconds the machine lasts according to the user, None when not said."""
    try:
        hours = float(os.environ.get(_HOURS, ""))
    except ValueError:
        return None
    return hours * 3600 if hours > 0 else None
