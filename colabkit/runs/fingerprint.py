"""What of a run changed since its checkpoint, and the ways on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from colabkit.errors import CheckpointMismatchError
from colabkit.frameworks.differences import differences

if TYPE_CHECKING:
    from colabkit.frameworks.base import FrameworkAdapter

_SHOWN_MAX = 6
_MADE = "objects_as_made"
WAYS_ON = (
    'Undo the change; or pass resume="weights" to take the weights that fit, or resume=False to'
    " start anew beside the old checkpoints, which stay."
)


def fingerprint_of(
    adapter: FrameworkAdapter, *, seed: int, at_start: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns what must be the same for a checkpoint to fit, and for the same bits.

    Args:
        adapter: The objects, which training may have given another form since they were made.
        seed: The run's seed.
        at_start: The fingerprint of the objects as they were made.
    """
    fingerprint = {
        "objects": adapter.fingerprint(),
        "seed": seed,
        "environment": adapter.environment(),
    }
    return fingerprint if fingerprint["objects"] == at_start else fingerprint | {_MADE: at_start}


def misfits(then: Mapping[str, Any], *, objects: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Returns what differs from a checkpoint's objects, as they were saved or as they were made."""
    now = {"objects": objects, "seed": seed}
    changed = differences({"objects": then["objects"], "seed": then["seed"]}, now)
    if (
        changed
        and _MADE in then
        and not differences({"objects": then[_MADE], "seed": then["seed"]}, now)
    ):
        return {}
    return changed


def mismatch_error(
    changed: Mapping[str, tuple[object, object]], location: str, *, hint: str = WAYS_ON
) -> CheckpointMismatchError:
    """Returns the error that lists what changed and the ways on."""
    shown = [f"{name}: was {_said(then)}, is {_said(now)}" for name, (then, now) in changed.items()]
    more = f"; and {len(shown) - _SHOWN_MAX} more" if len(shown) > _SHOWN_MAX else ""
    message = f"The checkpoint in {location} does not fit: {'; '.join(shown[:_SHOWN_MAX])}{more}."
    return CheckpointMismatchError(message, differences=changed, hint=hint)


def _said(value: object) -> object:
    return "missing" if value is None else value
