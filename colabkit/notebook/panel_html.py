"""What the panel of a run looks like, from plain records to HTML and text."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import html
from collections.abc import Mapping, Sequence

from colabkit.notebook.cards import Row, Tone, rows_html
from colabkit.notebook.charts import CHARTS_CSS, Chart, charts_html
from colabkit.notebook.progress import Progress
from colabkit.notebook.theme import themed
from colabkit.notebook.words import duration_words

CHARTS_MAX, VALUES_MAX, NOTES_MAX = 6, 24, 8


class Phase(enum.Enum):
    """What a run is doing."""

    TRAINING = "training"
    FINISHED = "finished"
    STOPPED = "stopped before its end"
    ENDED = "ended"


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """One place on a checkpoint's way, from memory to where it is safe for good.

    Attributes:
        name: The place: "this machine", "Drive".
        step: Step of the newest checkpoint there, None for none.
        age_s: How old the state it holds is, None when not known.
        tone: BAD when something stands in its way.
        remark: More about it: "copying for 12 s".
    """

    name: str
    step: int | None = None
    age_s: float | None = None
    tone: Tone = Tone.PLAIN
    remark: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class PanelState:
    """All that a panel shows.

    Attributes:
        title: Which run it is.
        progress: Where it stands.
        phase: What it is doing.
        steps_per_s: Its rate, 0 when not known yet.
        elapsed_s: For how long this session has trained.
        values: Newest loss and metrics, as words by name.
        stages: Where its checkpoints are, the safest place last.
        charts: Its curves.
        rows: The machine.
        notes: What was said, in order.
        drawn_at: When this was so.
    """

    title: str
    progress: Progress
    phase: Phase = Phase.TRAINING
    steps_per_s: float = 0.0
    elapsed_s: float = 0.0
    values: Mapping[str, str] = dataclasses.field(default_factory=dict)
    stages: Sequence[Stage] = ()
    charts: Sequence[Chart] = ()
    rows: Sequence[Row] = ()
    notes: Sequence[str] = ()
    drawn_at: datetime.datetime | None = None


def panel_html(state: PanelState) -> str:
    """Returns the panel as HTML; every text in it is escaped."""
    parts = (
        _head(state),
        _bar(state.progress.share),
        f'<div class="ck-muted">{html.escape(" · ".join(_pace(state)))}</div>',
        _values(state.values),
        charts_html(state.charts[:CHARTS_MAX]),
        _stages(state),
        rows_html(state.rows),
        "".join(f'<div class="ck-said">{html.escape(note)}</div>' for note in _notes(state)),
        f'<div class="ck-said ck-muted">{html.escape(_as_of(state))}</div>',
    )
    return themed("".join(parts), rules=_CSS)


def panel_text(state: PanelState) -> str:
    """Returns the panel as sentences, one a line, for whatever shows no HTML."""
    pace = ", ".join([state.progress.in_words(), *_pace(state)])
    lines = [f"{state.title}: {state.phase.value}, {pace}."]
    if state.values:
        values = ", ".join(f"{name} {words}" for name, words in state.values.items())
        lines.append(f"The newest values: {values}.")
    lines += [f"Saved ({stage.name}): {_stage_words(stage, state)}." for stage in state.stages]
    for row in state.rows:
        lines += [f"{row.name}: {row.value}.", *([row.advice] if row.advice else [])]
    return "\n".join([*lines, *_notes(state), *filter(None, [_as_of(state)])])


_CSS = (
    CHARTS_CSS + ".colabkit .ck-head{display:flex;flex-wrap:wrap;gap:2px 12px;align-items:baseline}"
    ".colabkit .ck-phase{background:var(--ck-sunk);border-radius:10px;padding:0 9px;font-size:12px;"
    "white-space:nowrap}"
    ".colabkit .ck-where{margin-left:auto;font-variant-numeric:tabular-nums}"
    ".colabkit .ck-track{background:var(--ck-sunk);border-radius:4px;height:8px;margin:8px 0 6px;"
    "overflow:hidden}"
    ".colabkit .ck-fill{background:var(--ck-accent);height:8px}"
    ".colabkit .ck-values{display:flex;flex-wrap:wrap;gap:2px 18px;margin-top:6px;"
    "font-variant-numeric:tabular-nums}"
    ".colabkit .ck-values span span{overflow-wrap:anywhere}"
    ".colabkit .ck-stages{display:flex;flex-wrap:wrap;gap:8px;margin-top:10px}"
    ".colabkit .ck-stage{flex:1 1 130px;border-left:3px solid var(--ck-edge);padding-left:9px;"
    "font-size:13px;min-width:0;overflow-wrap:anywhere}"
    ".colabkit .ck-stage.ck-on-good{border-color:var(--ck-good)}"
    ".colabkit .ck-stage.ck-on-note{border-color:var(--ck-note)}"
    ".colabkit .ck-stage.ck-on-bad{border-color:var(--ck-bad)}"
    ".colabkit .ck-said{margin-top:6px;font-size:13px;overflow-wrap:anywhere}"
)
_TONES = {
    Phase.TRAINING: Tone.PLAIN,
    Phase.FINISHED: Tone.GOOD,
    Phase.STOPPED: Tone.NOTE,
    Phase.ENDED: Tone.PLAIN,
}


def _head(state: PanelState) -> str:
    return (
        f'<div class="ck-head"><span class="ck-title">{html.escape(state.title)}</span> '
        f'<span class="ck-phase ck-{_TONES[state.phase].value}">{state.phase.value}</span> '
        f'<span class="ck-where">{html.escape(state.progress.words())}</span></div>'
    )


def _bar(share: float | None) -> str:
    if share is None:
        return ""
    percent = f"{100 * share:.1f}"
    return (
        f'<div class="ck-track" role="progressbar" aria-valuemin="0" aria-valuemax="100"'
        f' aria-valuenow="{percent}"><div class="ck-fill" style="width:{percent}%"></div></div>'
    )


def _pace(state: PanelState) -> list[str]:
    progress = state.progress
    total = f" of {progress.total_steps:,}" if progress.total_steps else ""
    parts = [f"step {progress.step:,}{total}"]
    if progress.share is not None:
        parts.append(f"{int(100 * progress.share)}%")
    if state.steps_per_s > 0:
        digits = 1 if state.steps_per_s < 100 else 0
        parts.append(f"{state.steps_per_s:,.{digits}f} steps/s")
    left_s = progress.left_s(state.steps_per_s)
    if state.phase is Phase.TRAINING and left_s is not None:
        parts.append(f"{duration_words(left_s)} left")
    parts.append(f"trained for {duration_words(state.elapsed_s)} in this session")
    return parts


def _values(values: Mapping[str, str]) -> str:
    shown = "".join(
        f'<span><span class="ck-muted">{html.escape(name)}</span> '
        f"<strong>{html.escape(words)}</strong></span> "
        for name, words in list(values.items())[:VALUES_MAX]
    )
    more = len(values) - VALUES_MAX
    rest = f'<span class="ck-muted">and {more} more</span>' if more > 0 else ""
    return f'<div class="ck-values">{shown}{rest}</div>' if shown else ""


def _stages(state: PanelState) -> str:
    drawn = "".join(
        f'<div class="ck-stage ck-on-{_stage_tone(stage).value}"><div class="ck-muted">'
        f"{html.escape(stage.name)}</div>{html.escape(_stage_words(stage, state))}</div>"
        for stage in state.stages
    )
    return f'<div class="ck-stages">{drawn}</div>' if drawn else ""


def _stage_tone(stage: Stage) -> Tone:
    if stage.tone is not Tone.PLAIN or stage.step is None:
        return stage.tone
    return Tone.GOOD


def _stage_words(stage: Stage, state: PanelState) -> str:
    words = "nothing yet" if stage.step is None else f"step {stage.step:,}"
    if stage.step is not None and stage.age_s is not None:
        words += f", {_when(stage.age_s, state)}"
    return f"{words} ({stage.remark})" if stage.remark else words


def _when(age_s: float, state: PanelState) -> str:
    """Returns an age while it ticks, and the time of day once the panel stands still."""
    if state.phase is Phase.TRAINING or state.drawn_at is None:
        return f"{duration_words(age_s)} ago"
    return f"saved {state.drawn_at - datetime.timedelta(seconds=age_s):%H:%M:%S}"


def _notes(state: PanelState) -> Sequence[str]:
    return state.notes[-NOTES_MAX:]


def _as_of(state: PanelState) -> str:
    # A session that is killed leaves its last drawing in the notebook, with ages in it.
    return "" if state.drawn_at is None else f"As of {state.drawn_at:%Y-%m-%d %H:%M:%S %Z}."
