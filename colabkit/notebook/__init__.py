"""Everything a person sees: sentences, progress bars, tables and curves."""

from colabkit.notebook.bar import TrainingBar
from colabkit.notebook.cards import Card, Row, Tone, card_html, card_text
from colabkit.notebook.curves import plot_history, svg_curves
from colabkit.notebook.environment import in_notebook
from colabkit.notebook.folders import folder_card
from colabkit.notebook.messages import Printed, Silent, Speaker, say
from colabkit.notebook.tables import html_table, text_table
from colabkit.notebook.transfer import Transfer, TransferBar
from colabkit.notebook.words import (
    bytes_words,
    duration_words,
    lasted_words,
    saved_words,
    value_words,
)

__all__ = [
    "Card",
    "Printed",
    "Row",
    "Silent",
    "Speaker",
    "Tone",
    "TrainingBar",
    "Transfer",
    "TransferBar",
    "bytes_words",
    "card_html",
    "card_text",
    "duration_words",
    "folder_card",
    "html_table",
    "in_notebook",
    "lasted_words",
    "plot_history",
    "saved_words",
    "say",
    "svg_curves",
    "text_table",
    "value_words",
]
