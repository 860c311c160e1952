"""The page's watcher in a real browser, against a page with Colab's button and its dialogs."""

from __future__ import annotations

import html
import json
import re
import time

import pytest

from colabkit.notebook import watch_card, watch_snippet, watch_word
from notebooks.screenshots import browse, console
from tests.abilities import BROWSER, package
from tests.colab_vm import Platform

SESSION = "a1b2"
LOOK_MS, AGAIN_MS = 20, 100
# The clock of a headless browser runs ahead only where every frame shares it.
IN_ONE_PROCESS = ("--disable-features=IsolateSandboxedIframes", "--disable-site-isolation-trials")
PAGE = """<!doctype html><html><body>
<colab-connect-button></colab-connect-button>
<mwc-dialog open hidden><p></p><button dialogAction="ok"></button></mwc-dialog>
<iframe sandbox="allow-scripts"></iframe>
<script>
// Colab's toolbar as far as it matters: a button in a shadow root, whose text is its state.
const words = WORDS;
const host = document.querySelector("colab-connect-button");
const root = host.attachShadow({mode: "open"});
root.innerHTML = '<div><button id="connect">Connect</button></div>';
const button = root.getElementById("connect");
const dialog = document.querySelector("mwc-dialog"), answer = dialog.querySelector("button");
let pressed = 0, answered = 0, helps = true;
button.onclick = () => { pressed += 1; if (helps) button.textContent = "RAM Disk"; };
answer.onclick = () => { answered += 1; dialog.hidden = true; };
const pause = ms => new Promise(done => setTimeout(done, ms));
async function say(name) {
  const frame = document.querySelector("iframe");
  const loaded = new Promise(done => { frame.onload = done; });
  frame.srcdoc = words[name];
  await loaded;
}
const toolbar = async text => { button.textContent = text; await pause(300); };
async function ask(question, label) {
  dialog.querySelector("p").textContent = question;
  answer.textContent = label;
  dialog.hidden = false;
  await pause(300);
  dialog.hidden = true;
}
</script>
<script>SNIPPET</script>
<script>
const told = {};
const note = name => { told[name] = [pressed, answered]; };
async function play() {
  await toolbar("Reconnect"); note("lost, and nobody trains");
  button.textContent = "RAM Disk";
  await say("other"); await toolbar("Reconnect"); note("another session trains");
  button.textContent = "RAM Disk";
  await say("old"); await toolbar("Reconnect"); note("a word from an output saved long ago");
  button.textContent = "RAM Disk";
  await say("training"); await pause(300); note("training, and connected");
  await toolbar("Reconnect"); note("training, and lost");
  await toolbar("Reconnect"); note("lost again, and no word from the kernel since");
  button.textContent = "RAM Disk";
  await say("training"); await toolbar("Reconnect"); note("lost again after a word");
  await say("training"); await say("ended"); await toolbar("Reconnect"); note("ended");
  button.textContent = "RAM Disk";
  await say("training"); await toolbar("Connect"); note("never connected");
  await toolbar("Connecting"); note("connecting");
  button.textContent = "RAM Disk";
  await ask("Are you still there?", "I'm not a robot"); note("a question for a person");
  await ask("Runtime disconnected", "Reconnect"); note("a dialog that says lost");
  await say("training"); helps = false;
  button.textContent = "Reconnect"; await pause(1500); note("a button that does not help");
  told.why = window.colabkitWatch.state().why;
  await pause(LIMIT); helps = true; button.textContent = "RAM Disk"; await pause(100);
  await say("training"); await toolbar("Reconnect"); note("after max_hours");
  told.over = window.colabkitWatch.state().why;
  const pre = document.body.appendChild(document.createElement("pre"));
  pre.id = "told"; pre.textContent = JSON.stringify(told);
}
play();
</script></body></html>"""
needs_browser = pytest.mark.needs(BROWSER)


def told_by(page: str) -> dict[str, object]:
    done = browse(page, "--dump-dom", "--virtual-time-budget=120000", *IN_ONE_PROCESS)
    assert console(done) == []
    found = re.search(r'<pre id="told">(.*?)</pre>', done.stdout)
    assert found is not None
    return json.loads(html.unescape(found[1]))


@needs_browser
def test_it_reconnects_only_a_lost_page_only_while_a_training_runs_and_not_for_ever():
    words = {
        "training": watch_word(SESSION, "training", "on"),
        "ended": watch_word(SESSION, "ended", "off"),
        "other": watch_word("c3d4", "training", "on"),
        "old": watch_word(SESSION, "training", "on", sent_s=time.time() - 3600),
    }
    limit_s = 20
    snippet = watch_snippet(SESSION, max_hours=limit_s / 3600, look_ms=LOOK_MS, again_ms=AGAIN_MS)
    page = PAGE.replace("WORDS", json.dumps(words).replace("</", "<\\/"))
    page = page.replace("SNIPPET", snippet).replace("LIMIT", str(limit_s * 1000))
    told = told_by(page)
    assert told["lost, and nobody trains"] == [0, 0]
    assert told["another session trains"] == [0, 0]
    assert told["a word from an output saved long ago"] == [0, 0]
    assert told["training, and connected"] == [0, 0]
    assert told["training, and lost"] == [1, 0]
    assert told["lost again, and no word from the kernel since"] == [1, 0]
    assert told["lost again after a word"] == [2, 0]
    assert told["ended"] == [2, 0]
    assert told["never connected"] == told["connecting"] == [2, 0]
    assert told["a question for a person"] == [2, 0]
    assert told["a dialog that says lost"] == [2, 1]
    assert told["a button that does not help"] == [7, 1]
    assert told["why"] == ""
    assert told["after max_hours"] == [7, 1]
    assert told["over"] == "its time is over"


CARD_PAGE = """<!doctype html><html><body><script>SNIPPET</script>
<iframe sandbox="allow-scripts"></iframe><script>
const frame = document.querySelector("iframe");
const reply = `<script>new MutationObserver(() => window.top.postMessage(
  document.querySelector("[data-state]").textContent, "*")).observe(
  document.querySelector("[data-state]"), {childList: true});<\\/script>`;
window.addEventListener("message", event => {
  if (typeof event.data !== "string") return;
  const pre = document.body.appendChild(document.createElement("pre"));
  pre.id = "told"; pre.textContent = JSON.stringify({said: event.data});
});
frame.srcdoc = CARD.replace("<script>", reply + "<script>");
</script></body></html>"""


@needs_browser
def test_the_card_says_so_once_the_snippet_works_though_it_cannot_reach_the_page():
    snippet = watch_snippet(SESSION, max_hours=12)
    card = watch_card(SESSION, snippet, max_hours=12)
    page = CARD_PAGE.replace("CARD", json.dumps(card).replace("</", "<\\/"))
    said = told_by(page.replace("SNIPPET", snippet))["said"]
    assert said.startswith("The page is watched while a training runs, until ")


def test_what_it_shows_says_whose_rules_apply_and_that_training_needs_it_not():
    card = watch_card(SESSION, watch_snippet(SESSION, max_hours=3), max_hours=3)
    assert "Colab's own rules apply" in html.unescape(card)
    assert "Training survives a disconnect without this" in card
    assert "for at most 3 hours" in card


STAY = """
import colabkit
colabkit.stay_connected(max_hours=1)
"""
TRAIN = """
import torch
def fit(callbacks=(), epochs=1):
    model = torch.nn.Linear(4, 2)
    data = torch.randn(64, 4), torch.randint(0, 2, (64,))
    return colabkit.fit(
        model, data, "runs/a", epochs=epochs, resume=False, progress=False, callbacks=callbacks)
"""

FAIL = """
def fail(event):
    if event.name == "batch_end":
        raise RuntimeError("no")
fit([fail])
"""


def words_in(bundles) -> list[str]:
    pages = [bundle.get("text/html", "") for bundle in bundles]
    return [found for page in pages for found in re.findall(r'"kind": "(\w+)"', page)]


def test_the_page_is_told_when_a_training_begins_and_however_it_ends(cloud):
    package("torch").require()
    machine = cloud.machine()
    shown = machine.run_cell(STAY).check()
    assert "Colab's own rules apply" in html.unescape(shown.data[0]["text/html"])
    machine.run_cell(TRAIN).check()
    done = machine.run_cell("history = fit()").check()
    assert (words_in(done.data), words_in(done.updates)) == (["training"], ["ended"])
    failed = machine.run_cell(FAIL)
    assert failed.error == "RuntimeError: no"
    assert (words_in(failed.data), words_in(failed.updates)) == (["training"], ["ended"])


@pytest.mark.parametrize("platform", [Platform.KAGGLE, Platform.LOCAL])
def test_elsewhere_there_is_nothing_to_do(cloud, platform):
    shown = cloud.machine(platform).run_cell(STAY).check()
    assert shown.stdout == "This is not a notebook on Colab: there is no connection to keep.\n"
    assert shown.data == []


@pytest.mark.parametrize("hours", [0, -1, 25, float("nan")])
def test_a_time_that_makes_no_sense_is_refused(hours):
    import colabkit

    with pytest.raises(colabkit.errors.ArgumentError, match="max_hours is"):
        colabkit.stay_connected(max_hours=hours)
