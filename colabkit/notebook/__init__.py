"""Everything a person sees: sentences, progress, cards, tables and curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from colabkit.doors import opened_on_use

if TYPE_CHECKING:
    from colabkit.notebook.bar import TrainingBar
    from colabkit.notebook.cards import Card, Row, Tone, card_html, card_text
    from colabkit.notebook.cells import RUN_AGAIN, cell_number, note_stopped, stop_with_cell
    from colabkit.notebook.charts import CHARTS_CSS, Chart, charts_html
    from colabkit.notebook.curves import charts_of, plot_history, svg_curves
    from colabkit.notebook.environment import Reader, in_notebook, reader, redraws
    from colabkit.notebook.folders import folder_card
    from colabkit.notebook.image_grid import Pixels, grid_of, images_of, png_of
    from colabkit.notebook.messages import (
        Printed,
        Silent,
        Speaker,
        said_if_it_lasts,
        say,
        silence_s,
    )
    from colabkit.notebook.page_watch import watch_card, watch_snippet, watch_word
    from colabkit.notebook.panel import CellOutput, PanelSources, TrainingPanel
    from colabkit.notebook.panel_html import EpochRows, Stage
    from colabkit.notebook.streams import show_output
    from colabkit.notebook.tables import html_table, text_table
    from colabkit.notebook.theme import themed
    from colabkit.notebook.thinning import ThinnedLine
    from colabkit.notebook.trainings import (
        listen_to_trainings,
        training_began,
        training_ended,
        training_goes_on,
    )
    from colabkit.notebook.transfer import Transfer, TransferBar
    from colabkit.notebook.words import (
        bytes_words,
        duration_words,
        files_words,
        lasted_words,
        saved_words,
        value_words,
    )

__all__ = [
    "CHARTS_CSS",
    "RUN_AGAIN",
    "Card",
    "CellOutput",
    "Chart",
    "EpochRows",
    "PanelSources",
    "Pixels",
    "Printed",
    "Reader",
    "Row",
    "Silent",
    "Speaker",
    "Stage",
    "ThinnedLine",
    "Tone",
    "TrainingBar",
    "TrainingPanel",
    "Transfer",
    "TransferBar",
    "bytes_words",
    "card_html",
    "card_text",
    "cell_number",
    "charts_html",
    "charts_of",
    "duration_words",
    "files_words",
    "folder_card",
    "grid_of",
    "html_table",
    "images_of",
    "in_notebook",
    "lasted_words",
    "listen_to_trainings",
    "note_stopped",
    "plot_history",
    "png_of",
    "reader",
    "redraws",
    "said_if_it_lasts",
    "saved_words",
    "say",
    "show_output",
    "silence_s",
    "stop_with_cell",
    "svg_curves",
    "text_table",
    "themed",
    "training_began",
    "training_ended",
    "training_goes_on",
    "value_words",
    "watch_card",
    "watch_snippet",
    "watch_word",
]

__getattr__, __dir__ = opened_on_use(
    __name__,
    {
        "bar": "TrainingBar",
        "cards": "Card Row Tone card_html card_text",
        "cells": "RUN_AGAIN cell_number note_stopped stop_with_cell",
        "charts": "CHARTS_CSS Chart charts_html",
        "curves": "charts_of plot_history svg_curves",
        "environment": "Reader in_notebook reader redraws",
        "folders": "folder_card",
        "image_grid": "Pixels grid_of images_of png_of",
        "messages": "Printed Silent Speaker said_if_it_lasts say silence_s",
        "page_watch": "watch_card watch_snippet watch_word",
        "panel": "CellOutput PanelSources TrainingPanel",
        "panel_html": "EpochRows Stage",
        "streams": "show_output",
        "tables": "html_table text_table",
        "theme": "themed",
        "thinning": "ThinnedLine",
        "trainings": "listen_to_trainings training_began training_ended training_goes_on",
        "transfer": "Transfer TransferBar",
        "words": "bytes_words duration_words files_words lasted_words saved_words value_words",
    },
)
