"""What the panel of a run looks like, from plain records to HTML and text."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import html
from collections.abc import Mapping, Sequence

from colabkit.notebook.cards import Row, Tone, rows_html
from colabkit.notebook.charts import CHARTS_CSS, Chart, charts_html
from colabkit.notebook.outlook import Conclusion, ending, risk
from colabkit.notebook.progress import RunProgress
from colabkit.notebook.tables import html_table
from colabkit.notebook.theme import themed
from colabkit.notebook.words import duration_words

CHARTS_MAX, VALUES_MAX, NOTES_MAX, COLUMNS_MAX = 6, 24, 8, 8


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
        none: What is shown while no checkpoint is known to be there.
    """

    name: str
    step: int | None = None
    age_s: float | None = None
    tone: Tone = Tone.PLAIN
    remark: str = ""
    none: str = "nothing yet"


@dataclasses.dataclass(frozen=True, slots=True)
class EpochRows:
    """The newest epochs, and the best of all.

    Attributes:
        rows: Values by name, a row each in their order; "epoch" counts from 1.
        best: Which of the rows is the best so far, None where nothing decides.
    """

    rows: Sequence[Mapping[str, object]] = ()
    best: int | None = None

    @property
    def columns(self) -> list[str]:
        """The names to show, the place first."""
        return list(dict.fromkeys(name for row in self.rows for name in row))[:COLUMNS_MAX]


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """Images that a run has shown.

    Attributes:
        png: The PNG file in base64, "" where there is no room for it.
        caption: What they are of.
    """

    png: str
    caption: str


@dataclasses.dataclass(frozen=True, slots=True)
class PanelState:
    """All that a panel shows.

    Attributes:
        title: Which run it is.
        progress: Where it stands.
        phase: What it is doing.
        doing: What it does besides training: "validating, batch 3 of 40".
        steps_per_s: Its rate, 0 when not known yet.
        overall_steps_per_s: Its rate over the whole session, validation and saves included.
        samples_per_s: How many samples that is, None when not known.
        elapsed_s: For how long this session has trained.
        values: Newest loss and metrics, as words by name.
        stages: Where its checkpoints are, the safest place last.
        charts: Its curves.
        picture: The newest images that it has shown.
        epochs: Its newest epochs.
        rows: The machine.
        notes: What was said, in order.
        drawn_at: When this was so.
        machine_left_s: How long the machine is likely to last, None when nothing ends it.
        what_may_happen: What would take along what is not safe: "the machine went".
    """

    title: str
    progress: RunProgress
    phase: Phase = Phase.TRAINING
    doing: str = ""
    steps_per_s: float = 0.0
    overall_steps_per_s: float = 0.0
    samples_per_s: float | None = None
    elapsed_s: float = 0.0
    values: Mapping[str, str] = dataclasses.field(default_factory=dict)
    stages: Sequence[Stage] = ()
    charts: Sequence[Chart] = ()
    picture: Picture | None = None
    epochs: EpochRows = EpochRows()
    rows: Sequence[Row] = ()
    notes: Sequence[str] = ()
    drawn_at: datetime.datetime | None = None
    machine_left_s: float | None = None
    what_may_happen: str = "the machine went"

    @property
    def left_s(self) -> float | None:
        """How long the rest takes: by the session's pace, which knows validations and saves."""
        return self.progress.left_s(self.overall_steps_per_s or self.steps_per_s)

    def conclusions(self) -> list[Conclusion]:
        """Returns what all this comes to, in a sentence or two."""
        if self.phase is not Phase.TRAINING:
            return []
        end = ending(
            left_s=self.left_s,
            elapsed_s=self.elapsed_s,
            machine_left_s=self.machine_left_s,
            now=self.drawn_at,
        )
        return [
            each for each in (end, risk(lost_s=self._lost_s(), what=self.what_may_happen)) if each
        ]

    def _lost_s(self) -> float | None:
        """Returns seconds of training that no safe place holds."""
        if not self.stages:
            return None
        safe = self.stages[-1]
        if safe.step is None:
            here = self.stages[0]
            if here.age_s is not None and here.age_s > self.elapsed_s:
                return None  # what an earlier session left on this machine would go as well
            return self.elapsed_s
        if safe.step >= self.progress.step:
            return 0.0
        # What an earlier session saved is older than the work of this one.
        return self.elapsed_s if safe.age_s is None else min(safe.age_s, self.elapsed_s)


def panel_html(state: PanelState) -> str:
    """Returns the panel as HTML; every text in it is escaped."""
    parts = (
        _head(state),
        _bar(state.progress.share),
        _conclusions(state),
        f'<div class="ck-muted">{html.escape(" · ".join(_pace(state)))}</div>',
        _values(state.values),
        charts_html(state.charts[:CHARTS_MAX]),
        _picture(state.picture),
        _epochs(state.epochs),
        _stages(state),
        rows_html(state.rows),
        "".join(f'<div class="ck-said">{html.escape(note)}</div>' for note in _notes(state)),
        f'<div class="ck-said ck-muted">{html.escape(_as_of(state))}</div>',
    )
    return themed("".join(parts), rules=_CSS)


def panel_text(state: PanelState) -> str:
    """Returns the panel as sentences, one a line, for whatever shows no HTML."""
    pace = ", ".join([state.progress.in_words(), *_pace(state)])
    lines = [f"{state.title}: {state.doing or state.phase.value}, {pace}."]
    lines += [each.words for each in state.conclusions()]
    if state.values:
        values = ", ".join(f"{name} {words}" for name, words in state.values.items())
        lines.append(f"The newest values: {values}.")
    lines += [f"Saved ({stage.name}): {_stage_words(stage, state)}." for stage in state.stages]
    if state.picture is not None:
        lines.append(f"The newest images: {state.picture.caption}.")
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
    ".colabkit .ck-ends{display:flex;flex-wrap:wrap;gap:2px 18px;margin:6px 0 4px;font-weight:600}"
    ".colabkit .ck-values{display:flex;flex-wrap:wrap;gap:2px 18px;margin-top:6px;"
    "font-variant-numeric:tabular-nums}"
    ".colabkit .ck-values span span{overflow-wrap:anywhere}"
    ".colabkit .ck-stages{display:flex;flex-wrap:wrap;gap:8px;margin-top:10px}"
    ".colabkit .ck-stage{flex:1 1 130px;border-left:3px solid var(--ck-edge);padding-left:9px;"
    "font-size:13px;min-width:0;overflow-wrap:anywhere}"
    ".colabkit .ck-stage.ck-on-good{border-color:var(--ck-good)}"
    ".colabkit .ck-stage.ck-on-note{border-color:var(--ck-note)}"
    ".colabkit .ck-stage.ck-on-bad{border-color:var(--ck-bad)}"
    ".colabkit .ck-picture{margin:10px 0 0;font-size:13px}"
    ".colabkit .ck-picture img{display:block;max-width:100%;margin-bottom:3px;"
    "image-rendering:pixelated}"
    ".colabkit .ck-said{margin-top:6px;font-size:13px;overflow-wrap:anywhere}"
)
_TONES = {
    Phase.TRAINING: Tone.PLAIN,
    Phase.FINISHED: Tone.GOOD,
    Phase.STOPPED: Tone.NOTE,
    Phase.ENDED: Tone.PLAIN,
}


def _head(state: PanelState) -> str:
    doing = html.escape(state.doing or state.phase.value)
    return (
        f'<div class="ck-head"><span class="ck-title">{html.escape(state.title)}</span> '
        f'<span class="ck-phase ck-{_TONES[state.phase].value}">{doing}</span> '
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


def _conclusions(state: PanelState) -> str:
    drawn = "".join(
        f'<span class="ck-{each.tone.value}">{html.escape(each.words)}</span> '
        for each in state.conclusions()
    )
    return f'<div class="ck-ends">{drawn}</div>' if drawn else ""


def _picture(picture: Picture | None) -> str:
    if picture is None:
        return ""
    caption = html.escape(picture.caption)
    source = f"data:image/png;base64,{picture.png}"
    drawn = f'<img alt="{caption}" src="{source}">' if picture.png else ""
    words = f'<figcaption class="ck-muted">{caption}</figcaption>'
    return f'<figure class="ck-picture">{drawn}{words}</figure>'


def _epochs(epochs: EpochRows) -> str:
    if not epochs.rows:
        return ""
    return html_table(epochs.rows, columns=epochs.columns, best=epochs.best)


def _pace(state: PanelState) -> list[str]:
    progress = state.progress
    total = f" of {progress.total_steps:,}" if progress.total_steps else ""
    parts = [f"step {progress.step:,}{total}"]
    if progress.share is not None:
        parts.append(f"{int(100 * progress.share)}%")
    if state.steps_per_s > 0:
        digits = 1 if state.steps_per_s < 100 else 0
        parts.append(f"{state.steps_per_s:,.{digits}f} steps/s")
    if state.samples_per_s:
        parts.append(f"{state.samples_per_s:,.0f} samples/s")
    left_s = state.left_s
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
    words = stage.none if stage.step is None else f"step {stage.step:,}"
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
