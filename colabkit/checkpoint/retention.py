"""Which checkpoints to keep."""

from __future__ import annotations

from collections.abc import Sequence

from colabkit.checkpoint.manifest import Manifest

_NEWEST_MIN = 2


def superfluous(known: Sequence[Manifest], *, keep: int) -> list[Manifest]:
    """Returns the checkpoints that may go.

    Args:
        known: Whole checkpoints of one attempt, in any order.
        keep: How many of the newest stay; 2 at least.
    """
    newest_first = sorted(known, key=lambda manifest: manifest.name, reverse=True)
    best = next((m for m in newest_first if m.facts.is_best), None)
    return [
        manifest
        for manifest in newest_first[max(keep, _NEWEST_MIN) :]
        if manifest is not best and not manifest.facts.keep_forever
    ]
