"""Cards: a title and a few named lines, as HTML in a notebook and as aligned text elsewhere."""

from __future__ import annotations

import dataclasses
import enum
import html


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
    lines = [card.title]
    for row in card.rows:
        lines.append(f"  {row.name:<{width}}  {row.value}".rstrip())
        if row.advice:
            lines.append(f"  {'':<{width}}  → {row.advice}")
    return "\n".join(lines)


def card_html(card: Card) -> str:
    """Returns a card as HTML; every text in it is escaped."""
    rows = "".join(_row_html(row) for row in card.rows)
    return f"<div><strong>{html.escape(card.title)}</strong><table>{rows}</table></div>"


def _row_html(row: Row) -> str:
    advice = f"<br><small>→ {html.escape(row.advice)}</small>" if row.advice else ""
    cells = (_MARKS[row.tone], html.escape(row.name), html.escape(row.value) + advice)
    return "<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in cells) + "</tr>"
