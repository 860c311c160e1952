"""Cards."""

from __future__ import annotations

from colabkit.notebook import Card, Row, Tone, card_html, card_text

HOSTILE = "<img src=x onerror=alert(1)>"


def test_a_card_is_aligned_text():
    card = Card("colabkit", (Row("Drive", "mounted"), Row("GPU", "none", Tone.NOTE, "Pick one.")))
    assert card_text(card) == "colabkit\n  Drive  mounted\n  GPU    none\n         → Pick one."


def test_a_card_brings_its_style_and_marks_each_tone():
    card = Card("colabkit", tuple(Row(tone.value, "…", tone) for tone in Tone))
    shown = card_html(card)
    assert shown.startswith('<div class="colabkit"><style>')
    for tone, mark in ((Tone.GOOD, "✓"), (Tone.NOTE, "!"), (Tone.BAD, "✗")):
        assert f'<td class="ck-{tone.value}">{mark}</td>' in shown


def test_every_word_of_a_card_is_escaped():
    shown = card_html(Card(HOSTILE, (Row(HOSTILE, HOSTILE, Tone.BAD, HOSTILE),)))
    assert "<img" not in shown
    assert shown.count("&lt;img src=x onerror=alert(1)&gt;") == 4


def test_a_card_without_title_or_rows_is_empty_of_them():
    assert "ck-title" not in card_html(Card("", ())).rpartition("</style>")[2]
    assert card_text(Card("", ())) == ""
