"""The one look of everything drawn in a notebook, light and dark."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Palette:
    """Colours as "#rrggbb".

    Attributes:
        back: Behind everything.
        sunk: Behind a badge, a code word, the empty part of a bar.
        edge: Frames and grid lines, which carry no meaning.
        text: What is read first.
        muted: What is read second.
        accent: The bar, and the first line of a chart.
        second: The second line of a chart: the validation.
        good: What went well.
        note: What should be known.
        bad: What went wrong.
    """

    back: str
    sunk: str
    edge: str
    text: str
    muted: str
    accent: str
    second: str
    good: str
    note: str
    bad: str


LIGHT = Palette(
    back="#ffffff",
    sunk="#f1f4f8",
    edge="#d5dbe3",
    text="#1b2330",
    muted="#56606e",
    accent="#1d63c4",
    second="#b4480f",
    good="#176e3a",
    note="#855500",
    bad="#b3261e",
)
DARK = Palette(
    back="#1b1e24",
    sunk="#272c35",
    edge="#3b424e",
    text="#e9edf3",
    muted="#a9b3c1",
    accent="#7db3ff",
    second="#ffab73",
    good="#74d69a",
    note="#f2c063",
    bad="#ff9a92",
)
# JupyterLab, Colab and VS Code mark their page; elsewhere the system's preference counts.
_DARK_PAGES = '[data-jp-theme-light="false"]', "html[theme=dark]", ".vscode-dark"
_LIGHT_PAGES = '[data-jp-theme-light="true"]', "html[theme=light]", ".vscode-light"


def colour(name: str) -> str:
    """Returns a colour for a style, with the light one where the theme is stripped off.

    Example:
        >>> colour("accent")
        'var(--ck-accent,#1d63c4)'
    """
    return f"var(--ck-{name},{getattr(LIGHT, name)})"


def themed(body: str, *, rules: str = "") -> str:
    """Returns HTML inside the theme; it brings all of its style along.

    Args:
        body: HTML, escaped already.
        rules: CSS of the body's own classes.
    """
    return f'<div class="colabkit"><style>{_STYLE}{rules}</style>{body}</div>'


def _variables(palette: Palette) -> str:
    return "".join(f"--ck-{name}:{value};" for name, value in dataclasses.asdict(palette).items())


def _on(pages: tuple[str, ...], palette: Palette, scheme: str) -> str:
    where = ",".join(f"{page} .colabkit" for page in pages)
    return f"{where}{{{_variables(palette)}color-scheme:{scheme}}}"


_STYLE = (
    f".colabkit{{{_variables(LIGHT)}color-scheme:light}}"
    f"@media (prefers-color-scheme:dark){{.colabkit{{{_variables(DARK)}color-scheme:dark}}}}"
    + _on(_LIGHT_PAGES, LIGHT, "light")
    + _on(_DARK_PAGES, DARK, "dark")
    + ".colabkit{background:var(--ck-back);color:var(--ck-text);border:1px solid var(--ck-edge);"
    "border-radius:8px;padding:12px 16px;margin:4px 0;max-width:960px;box-sizing:border-box;"
    "font:14px/1.45 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;overflow:hidden}"
    ".colabkit *{box-sizing:border-box}"
    ".colabkit .ck-title{font-size:15px;font-weight:600;overflow-wrap:anywhere}"
    ".colabkit .ck-muted{color:var(--ck-muted)}"
    ".colabkit .ck-good{color:var(--ck-good)}"
    ".colabkit .ck-note{color:var(--ck-note)}"
    ".colabkit .ck-bad{color:var(--ck-bad)}"
    # As strong as a notebook page's own rules for tables, which stripe and right-align them.
    ".colabkit div.ck-scroll{overflow-x:auto}"
    ".colabkit div table.ck-table{border-collapse:collapse;border:0;margin:8px 0 0;color:inherit;"
    "font-size:13px;table-layout:auto;font-variant-numeric:tabular-nums}"
    ".colabkit div table.ck-table tr:nth-child(n){background:none}"
    ".colabkit div table.ck-table td,.colabkit div table.ck-table th{border:0;"
    "padding:2px 14px 2px 0;text-align:left;vertical-align:top;white-space:normal;max-width:none;"
    "color:inherit;overflow-wrap:anywhere}"
    ".colabkit div table.ck-table th{color:var(--ck-muted);font-weight:400;overflow-wrap:normal}"
    ".colabkit div table.ck-numbers td,.colabkit div table.ck-numbers th{text-align:right;"
    "white-space:nowrap}"
    ".colabkit div table.ck-numbers th{border-bottom:1px solid var(--ck-edge)}"
    ".colabkit div table.ck-table tr.ck-best td{color:var(--ck-good);font-weight:600}"
    ".colabkit div table.ck-table td.ck-good{color:var(--ck-good)}"
    ".colabkit div table.ck-table td.ck-note{color:var(--ck-note)}"
    ".colabkit div table.ck-table td.ck-bad{color:var(--ck-bad)}"
)
