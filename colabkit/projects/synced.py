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
        source: Its stamp in the project when it was copied, None for what was made here.
        there: Its stamp where output belongs, None when it was never written there.
        is_ours: Whether the script made it.
    """

    here: Stamp | None
    source: Stamp | None
    there: Stamp | None
    is_ours: bool = False


def read_list(root: Path) -> dict[str, Synced]:
    """Returns what a mirror's folder notes, by path; nothing where that is damaged."""
    try:
        value = json.loads((root / _NAME).read_text())
        return {name: _synced(entry) for name, entry in value.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError):
        _logger.warning("The list of %s is damaged.", root, exc_info=True)
        return {}


def write_list(root: Path, synced: Mapping[str, Synced]) -> None:
    """Notes in a mirror's folder what is the same."""
    files = {name: dataclasses.asdict(one) for name, one in synced.items()}
    write_whole(root / _NAME, json.dumps(files).encode(), durable=False)


def _synced(entry: dict[str, Any]) -> Synced:
    keys = ("here", "source", "there")
    stamps = {key: Stamp(**entry[key]) if entry[key] else None for key in keys}
    return Synced(**stamps, is_ours=bool(entry["is_ours"]))
