"""Cards: a title and a few named lines, as HTML in a notebook and as aligned text elsewhere."""

from __future__ import annotations

import dataclasses
import enum
import html
from collections.abc import Sequence

from colabkit.notebook.theme import themed


class Tone(enum.Enum):
    """How a line of a card is meant."""

    PLAIN = "plain"
    GOOD = "good"
    NOTE = "note"
    BAD = "bad"


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One line of a card.

    Attributes:
        name: What it is about: "Drive".
        value: What there is to say.
        tone: How it is meant.
        advice: What to do about it, "" for nothing.
    """

    name: str
    value: str
    tone: Tone = Tone.PLAIN
    advice: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Card:
    """What a result looks like at the end of a cell.

    Attributes:
        title: What it is.
        rows: Its lines.
    """

    title: str
    rows: tuple[Row, ...]


_MARKS = {Tone.PLAIN: "", Tone.GOOD: "✓", Tone.NOTE: "!", Tone.BAD: "✗"}


def card_text(card: Card) -> str:
    """Returns a card as aligned text.

    Example:
        >>> print(card_text(Card("colabkit", (Row("Drive", "mounted"), Row("GPU", "none")))))
        colabkit
          Drive  mounted
          GPU    none
    """
    width = max((len(row.name) for row in card.rows), default=0)
    lines = [card.title] if card.title else []
    for row in card.rows:
        lines.append(f"  {row.name:<{width}}  {row.value}".rstrip())
        if row.advice:
            lines.append(f"  {'':<{width}}  → {row.advice}")
    return "\n".join(lines)


def card_html(card: Card) -> str:
    """Returns a card as HTML; every text in it is escaped."""
    title = f'<div class="ck-title">{html.escape(card.title)}</div>' if card.title else ""
    return themed(title + rows_html(card.rows))


def rows_html(rows: Sequence[Row]) -> str:
    """Returns lines as an HTML table, for use inside the theme."""
    if not rows:
        return ""
    lines = "".join(_row_html(row) for row in rows)
    return f'<div class="ck-scroll"><table class="ck-table">{lines}</table></div>'


def _row_html(row: Row) -> str:
    kind = "" if row.tone is Tone.PLAIN else f' class="ck-{row.tone.value}"'
    advice = ""
    if row.advice:
        advice = f'<br><span class="ck-muted">→ {html.escape(row.advice)}</span>'
    return (
        f"<tr><td{kind}>{_MARKS[row.tone]}</td>"
        f'<th scope="row">{html.escape(row.name)}</th>'
        f"<td>{html.escape(row.value)}{advice}</td></tr>"
    )
