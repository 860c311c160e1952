"""The theme: readable for everyone, light and dark."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from colabkit.notebook import themed
from colabkit.notebook.theme import DARK, LIGHT, Palette, colour

TEXT_RATIO, GRAPHICS_RATIO = 4.5, 3.0  # WCAG 2.2, level AA: 1.4.3 and 1.4.11
WORDS = ("text", "muted", "accent", "second", "good", "note", "bad")
BOTH = pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])


def luminance(shade: str) -> float:
    channels = [int(shade[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_measure_is_that_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@BOTH
def test_every_word_stands_out_from_what_is_behind_it(palette: Palette):
    for name, ground in itertools.product(WORDS, ("back", "sunk")):
        assert contrast(getattr(palette, name), getattr(palette, ground)) >= TEXT_RATIO, name


@BOTH
def test_the_bar_stands_out_from_its_empty_part(palette: Palette):
    assert contrast(palette.accent, palette.sunk) >= GRAPHICS_RATIO


def test_every_colour_has_one_to_fall_back_on_where_styles_are_stripped():
    for name, value in dataclasses.asdict(LIGHT).items():
        assert colour(name) == f"var(--ck-{name},{value})"


def test_the_style_names_both_palettes_and_every_page_that_marks_itself():
    style = themed("")
    for shade in (*dataclasses.astuple(LIGHT), *dataclasses.astuple(DARK)):
        assert shade in style
    for mark in (
        "@media (prefers-color-scheme:dark)",
        '[data-jp-theme-light="false"]',
        "html[theme=dark]",
        ".vscode-dark",
    ):
        assert mark in style
    assert len(style) < 4000
