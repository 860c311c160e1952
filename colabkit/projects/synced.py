"""The list of what is the same in a project and in its copy."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colabkit.projects.trees import Stamp
from colabkit.storage import write_whole

_logger = logging.getLogger(__name__)
_NAME = "list.json"


@dataclasses.dataclass(frozen=True, slots=True)
class Synced:
    """One file that is the same here and there.

    Attributes:
        here: Its stamp on this machine, None while it is being copied here.
        source: Its stamp in the project when it was copied.
    """

    here: Stamp | None
    source: Stamp


def read_list(root: Path) -> dict[str, Synced]:
    """Returns what a copy's folder notes, by path; nothing where that is damaged."""
    try:
        value = json.loads((root / _NAME).read_text())
        return {name: _synced(entry) for name, entry in value.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError):
        _logger.warning("The list of %s is damaged.", root, exc_info=True)
        return {}


def write_list(root: Path, synced: Mapping[str, Synced]) -> None:
    """Notes in a copy's folder what is the same."""
    files = {name: dataclasses.asdict(one) for name, one in synced.items()}
    write_whole(root / _NAME, json.dumps(files).encode(), durable=False)


def _synced(entry: dict[str, Any]) -> Synced:
    here = entry["here"]
    return Synced(Stamp(**here) if here else None, Stamp(**entry["source"]))
