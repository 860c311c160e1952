"""Whether the data of a run is still what it was: records of batches, kept and compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from colabkit.errors import ArgumentError, CheckpointMismatchError
from colabkit.frameworks.batch_records import BatchRecord, KeptBatch, LeafRecord

WAYS_ON = (
    "Classes numbered by a set, files in the order of a listing, a split or data made without a"
    " seed come out otherwise in each session: sort and seed them. Or pass"
    ' data_changed="accept" to go on with the data as it is now, resume="weights" to take only'
    " the weights, or resume=False to start anew beside the old checkpoints, which stay. Another"
    " part of the data, a fold, needs another folder. What the loop itself chooses or makes with"
    " the model, run.state() keeps."
)
SHARES = (
    "Several processes shared the samples out: where one goes on in the middle of an epoch, give"
    " its loader DistributedSampler(dataset, num_replicas=1, rank=0), with the same seed. "
)
_SHOWN_MAX = 4
_OF_THE_MACHINE = ("device", "processor", "CPU threads")
_OF_THE_WEIGHTS = "weights "


def batch_size_of_all(described: Mapping[str, Any]) -> int | None:
    """Returns how many samples are trained at a step by all processes together.

    Args:
        described: What data says of itself.

    Example:
        >>> batch_size_of_all({"samples": 40, "batch_size": 4, "replicas": 2})
        8
    """
    size = described.get("batch_size")
    return None if size is None else int(size) * int(described.get("replicas", 1))


def check_data_changed(value: object) -> None:
    """Raises ArgumentError unless ``data_changed`` is one of the two ways."""
    if value not in {"error", "accept"}:
        message = f"data_changed is {value!r}."
        raise ArgumentError(message, argument="data_changed", hint='Pass "error" or "accept".')


@dataclasses.dataclass(frozen=True, slots=True)
class Leniency:
    """What may differ without an error.

    Attributes:
        accepts: Whether the user accepts other data.
        other_libraries: Whether libraries changed, which may draw and shuffle otherwise.
        other_machine: Whether the processor changed, which may round otherwise.
    """

    accepts: bool = False
    other_libraries: bool = False
    other_machine: bool = False

    @classmethod
    def towards(cls, data_changed: str, environment: Sequence[str]) -> Leniency:
        """Returns what may differ, where sentences say what has changed of the environment."""
        environment = [said for said in environment if not said.startswith(_OF_THE_WEIGHTS)]
        machine = [said for said in environment if said.startswith(_OF_THE_MACHINE)]
        return cls(
            accepts=data_changed == "accept",
            other_libraries=len(machine) < len(environment),
            other_machine=bool(machine),
        )


def compare(
    kept: KeptBatch,
    now: BatchRecord | None,
    *,
    where: str,
    location: str,
    leniency: Leniency,
    reasons: Iterable[str] = (),
) -> str:
    """Compares a batch that was fetched again with what is kept of it.

    Args:
        kept: What is kept.
        now: What was fetched, None where the data had ended before.
        where: Which batch it is, in words.
        location: The run folder.
        leniency: What may differ.
        reasons: Why its source cannot be repeated, as far as is known now.

    Returns:
        A sentence where it differs and may, "" where it is the same.

    Raises:
        CheckpointMismatchError: It differs and must not.
    """
    then = kept.record
    changes = then.changes(now or BatchRecord(()))
    # Of a batch in which nothing was found, nothing is known.
    if not changes or not then.leaves:
        return ""
    said = f"The data is not what it was: {where} {_words(then, now, changes)}."
    expected = "; ".join(dict.fromkeys((*kept.reasons, *reasons)))
    rounds_only = leniency.other_machine and not any(
        leaf is None or leaf.is_discrete for pair in changes.values() for leaf in pair
    )
    if expected:
        return f"{said} It was not to be expected: {expected}."
    if leniency.accepts:
        return f"{said} Going on with it as it is now."
    if leniency.other_libraries or rounds_only:
        return f"{said} The machine or its libraries are not what they were either."
    differences = {name: (_shown(was), _shown(now)) for name, (was, now) in changes.items()}
    message = f"{said} The run is in {location}."
    raise CheckpointMismatchError(message, differences=differences, hint=WAYS_ON)


def _words(
    then: BatchRecord,
    now: BatchRecord | None,
    changes: Mapping[str, tuple[LeafRecord | None, LeafRecord | None]],
) -> str:
    if now is None:
        return "is missing, the data ends before it"
    for name, (was, is_now) in changes.items():
        if was is None or is_now is None:
            return f"has {'lost' if is_now is None else 'gained'} {name}"
        if was.form != is_now.form:
            return f"has {name} of {is_now.form}, and had {was.form}"
    same = [leaf.name for leaf in then.leaves if leaf.name not in changes]
    pairs = [(was, is_now) for was, is_now in changes.values() if was and is_now]
    unordered = all(was.unordered and was.unordered == is_now.unordered for was, is_now in pairs)
    if unordered and not same:
        return "has the same samples in another order"
    if not same:
        return "holds other samples"
    changed = ", ".join(list(changes)[:_SHOWN_MAX])
    return f"has another {changed}, and the same {', '.join(same[:_SHOWN_MAX])}"


def _shown(leaf: LeafRecord | None) -> str | None:
    return None if leaf is None else f"{leaf.form} {leaf.digest}"
