"""Tables for the eye, as HTML and as text."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from colabkit.notebook.words import value_words


def text_table(rows: Sequence[Mapping[str, object]], *, columns: Sequence[str]) -> str:
    """Returns rows as aligned text, one line each, under the columns' names.

    Args:
        rows: One mapping a row; a missing value becomes a dash.
        columns: Names of the values to show, in order.

    Example:
        >>> print(text_table([{"epoch": 1, "loss": 0.5}], columns=["epoch", "loss"]))
        epoch  loss
            1   0.5
    """
    cells = [list(columns), *([value_words(row.get(name)) for name in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    )


def html_table(
    rows: Sequence[Mapping[str, object]], *, columns: Sequence[str], best: int | None = None
) -> str:
    """Returns rows as an HTML table for use inside the theme; all in it is escaped.

    Args:
        rows: One mapping a row; a missing value becomes a dash.
        columns: Names of the values to show, in order.
        best: Which row is marked as the best, from 0; None for none.

    Example:
        >>> "<th>a&lt;b</th>" in html_table([{"a<b": 1}], columns=["a<b"])
        True
    """
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(
        ('<tr class="ck-best">' if place == best else "<tr>")
        + "".join(f"<td>{html.escape(value_words(row.get(name)))}</td>" for name in columns)
        + ("<td>best</td></tr>" if place == best else "</tr>")
        for place, row in enumerate(rows)
    )
    head += "<th></th>" if best is not None else ""
    table = f'<table class="ck-table ck-numbers"><tr>{head}</tr>{body}</table>'
    return f'<div class="ck-scroll">{table}</div>'
