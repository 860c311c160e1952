"""What the browser is given to stay connected: a snippet for its console, and words to it."""

from __future__ import annotations

import html
import importlib.resources
import json
import time

from colabkit.notebook.theme import themed

_LOOK_MS = 15_000
_AGAIN_MS = 60_000
_FRESH_MS = 600_000
_TRIES = 5
_HELLO_MS = 5_000
_RULES = (
    "Colab's own rules apply: it ends sessions after some hours, and idle ones earlier, whatever"
    " this page does. Training survives a disconnect without this: run all cells again, and it"
    " goes on at the very batch. No question of Colab's, such as whether you are still there,"
    " is ever answered for you."
)
_CARD_SCRIPT = """
(function () {
  const session = %(session)s, place = document.getElementById(%(id)s);
  const state = place.querySelector("[data-state]");
  place.querySelector("button").onclick = () => {
    const text = place.querySelector("textarea");
    text.select();
    if (navigator.clipboard) navigator.clipboard.writeText(text.value).catch(() => {});
    document.execCommand("copy");
  };
  window.addEventListener("message", event => {
    const said = event.data;
    if (!said || said.colabkit !== session || said.kind !== "watching") return;
    const until = new Date(said.endsAt).toLocaleTimeString();
    state.textContent = "The page is watched while a training runs, until " + until + ".";
  });
  const greet = () => window.top.postMessage({colabkit: session, kind: "hello"}, "*");
  greet();
  setInterval(greet, %(hello_ms)d);
})();
"""


def watch_snippet(
    session: str,
    *,
    max_hours: float,
    look_ms: int = _LOOK_MS,
    again_ms: int = _AGAIN_MS,
) -> str:
    """Returns the JavaScript that watches the page, to be pasted into the browser's console.

    Args:
        session: A word that only this session's messages carry.
        max_hours: After this it stops by itself.
        look_ms: How often it looks.
        again_ms: How long it waits between two tries.
    """
    source = importlib.resources.files("colabkit.notebook").joinpath("reconnect.js")
    config = {
        "session": session,
        "maxMs": round(max_hours * 3_600_000),
        "lookMs": look_ms,
        "againMs": again_ms,
        "freshMs": _FRESH_MS,
        "tries": _TRIES,
    }
    return f"{source.read_text(encoding='utf-8').rstrip()}({json.dumps(config)});"


def watch_card(session: str, snippet: str, *, max_hours: float) -> str:
    """Returns the card that hands the snippet over and says what it does, as HTML."""
    ident = f"ck-{session}"
    words = {"session": json.dumps(session), "id": json.dumps(ident), "hello_ms": _HELLO_MS}
    body = (
        f'<div id="{ident}"><div class="ck-title">Stay connected</div>'
        "<p data-state>Not on yet: Colab shows outputs in a frame that cannot reach its page."
        " Copy this, open the browser's console (F12, then Console), paste it and press Enter."
        "</p>"
        f'<textarea readonly rows="3" style="width:100%">{html.escape(snippet)}</textarea>'
        "<button>Copy</button>"
        f"<p>While a training of this session runs, for at most {max_hours:g} hours, it presses"
        " Reconnect when the page says that the connection is lost, and nothing else."
        f' <span class="ck-muted">{html.escape(_RULES)}</span></p></div>'
    )
    return themed(body) + f"<script>{_CARD_SCRIPT % words}</script>"


def watch_word(session: str, kind: str, words: str, *, sent_s: float | None = None) -> str:
    """Returns a message to the page that is watched, with a line for the reader, as HTML.

    Args:
        session: The session that it comes from.
        kind: "training" or "ended".
        words: What the reader sees.
        sent_s: When it was sent, in seconds since the epoch; now by default.
    """
    sent_ms = round((time.time() if sent_s is None else sent_s) * 1000)
    message = json.dumps({"colabkit": session, "kind": kind, "sentAt": sent_ms})
    line = themed(f'<span class="ck-muted">{html.escape(words)}</span>')
    return f'{line}<script>window.top.postMessage({message}, "*");</script>'
