"""Tables for the eye, as HTML and as text."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

from colabkit.notebook.words import value_words

# Columns of smaller numbers are as long as their smallest one is.
_DECIMALS_MAX = 6


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
    cells = [list(columns), *_cells(rows, columns)]
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
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in line)
        + ("<td>best</td></tr>" if place == best else "</tr>")
        for place, line in enumerate(_cells(rows, columns))
    )
    head += "<th></th>" if best is not None else ""
    table = f'<table class="ck-table ck-numbers"><tr>{head}</tr>{body}</table>'
    return f'<div class="ck-scroll">{table}</div>'


def _cells(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> list[list[str]]:
    """Returns the words of each row, the numbers of a column with as many decimals."""
    by_column = [_aligned([row.get(name) for row in rows]) for name in columns]
    return [[column[place] for column in by_column] for place in range(len(rows))]


def _aligned(values: Sequence[object]) -> list[str]:
    words = [value_words(value) for value in values]
    plain = [
        isinstance(value, float) and math.isfinite(value) and "e" not in word
        for value, word in zip(values, words, strict=True)
    ]
    decimals = [
        len(word.partition(".")[2]) for word, is_so in zip(words, plain, strict=True) if is_so
    ]
    most = max(decimals, default=0)
    if most > _DECIMALS_MAX:
        return words
    return [
        f"{value:.{most}f}" if is_so and most else word
        for value, word, is_so in zip(values, words, plain, strict=True)
    ]
