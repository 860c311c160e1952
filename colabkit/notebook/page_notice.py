"""What a panel tells the browser when a run has ended: the page's title, and a notification."""

from __future__ import annotations

import json

# A notebook that is opened again runs its scripts again.
_FRESH_MS = 60_000
# What ended sooner is still being looked at.
WORTH_A_NOTICE_S = 30.0
_SCRIPT = """<script>(() => {
if (Math.abs(Date.now() - %(sent_ms)d) > %(fresh_ms)d) return;
const words = %(words)s;
let page = document;
try { page = window.top.document; } catch (error) {}
const before = page.title;
page.title = words + " \\u00b7 " + before;
const seen = () => { if (!page.hidden) page.title = before; };
if (page.hidden) page.addEventListener("visibilitychange", seen, {once: true});
else setTimeout(seen, 10000);
if (!page.hidden || typeof Notification === "undefined") return;
const tell = () => { try { new Notification("colabkit", {body: words}); } catch (error) {} };
if (Notification.permission === "granted") tell();
else if (Notification.permission === "default") {
const asked = Notification.requestPermission(() => {});
if (asked) asked.then(answer => { if (answer === "granted") tell(); }, () => {});
}
})();</script>"""


def notice_script(words: str, *, sent_s: float) -> str:
    """Returns the script that puts words into the page's title, and notifies who looks elsewhere.

    The title is what it was as soon as the page is seen. Where scripts do not run, or run in a
    frame apart from the page, as on Colab, nothing happens; nor does it in a notebook that is
    opened a minute later.

    Args:
        words: What happened.
        sent_s: When, in seconds since the epoch.

    Example:
        >>> notice_script("runs/cats: finished", sent_s=0.0)[:8]
        '<script>'
    """
    # In a script "</" would end it, and so would "<!--" begin something else.
    told = json.dumps(words).replace("<", "\\u003c")
    return _SCRIPT % {"words": told, "sent_ms": round(sent_s * 1000), "fresh_ms": _FRESH_MS}
