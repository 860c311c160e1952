"""Which cell of a notebook runs, and that one whose stop button was answered ends."""

from __future__ import annotations

import sys

RUN_AGAIN = "Run it again to go on where that stopped."
_stopped: set[int] = set()
_ended: set[int] = set()


def cell_number() -> int:
    """Returns how many cells have run in this notebook, 0 in a script."""
    cells = vars(sys.modules["__main__"]).get("In")
    return len(cells) if isinstance(cells, list) else 0


def note_stopped() -> None:
    """Takes down that a training in this cell was interrupted, and has returned."""
    _stopped.add(cell_number())
    _ended.discard(cell_number())


def stop_with_cell(what: str, *, once: bool = True) -> None:
    """Ends a cell in which a training was interrupted: whoever pressed stop means all of it.

    Args:
        what: What does not happen, in words.
        once: Whether it happens if asked for again: a button of a widget does so in no new cell.

    Raises:
        KeyboardInterrupt: One was. Never in a script, which has no cells.
    """
    number = cell_number()
    if not number or number not in _stopped or (once and number in _ended):
        return
    _ended.add(number)
    message = f"The training before was interrupted: {what}. {RUN_AGAIN}"
    raise KeyboardInterrupt(message)
