"""Which checkpoints to keep."""

from __future__ import annotations

from collections.abc import Sequence

from colabkit.checkpoint.manifest import Manifest, Name

_NEWEST_MIN = 2


def superfluous(known: Sequence[Manifest], *, keep: int) -> list[Manifest]:
    """Returns the checkpoints that may go.

    Two of the same step may lie in the same files, and then are damaged together: only the
    newer one counts. Where weights became NaN, the newest that are none stay as well.

    Args:
        known: Whole checkpoints of one attempt, in any order.
        keep: How many of the newest stay; 2 at least.
    """
    newest_first = sorted(known, key=lambda manifest: manifest.name, reverse=True)
    best = next((m for m in newest_first if m.facts.is_best), None)
    newest_of_step: dict[int, Name] = {}
    finite_of_step: dict[int, Name] = {}
    for manifest in newest_first:
        newest_of_step.setdefault(manifest.facts.step, manifest.name)
        if manifest.facts.is_finite:
            finite_of_step.setdefault(manifest.facts.step, manifest.name)
    count = max(keep, _NEWEST_MIN)
    staying = {*list(newest_of_step.values())[:count], *list(finite_of_step.values())[:count]}
    return [
        manifest
        for manifest in newest_first
        if manifest.name not in staying and manifest is not best and not manifest.facts.keep_forever
    ]
