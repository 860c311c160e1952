"""Panels and cards in a real browser: every theme and width, no error, readable, harmless."""

from __future__ import annotations

import json
import re
import time

import pytest

from colabkit.notebook.page_notice import notice_script
from notebooks.screenshots import browse, console, executed, gallery, rendered
from tests.abilities import BROWSER

pytestmark = pytest.mark.needs(BROWSER)

NARROW, WIDE = "--window-size=480,1200", "--window-size=1280,1200"
PREFERS_DARK = ("--force-dark-mode",)
# The contrast of each text with what is behind it, as the browser draws it.
MEASURE = r"""
<script>
function channels(shade) { return shade.match(/[\d.]+/g).map(Number); }
function luminance(shade) {
  const [r, g, b] = channels(shade).slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function behind(node) {
  for (; node; node = node.parentElement) {
    const shade = getComputedStyle(node).backgroundColor;
    const parts = channels(shade);
    if (parts.length == 3 || parts[3] == 1) return shade;
  }
  return "rgb(255, 255, 255)";
}
function measure() {
  let least = 21, count = 0;
  for (const node of document.querySelectorAll(".colabkit *")) {
    const own = [...node.childNodes].some(n => n.nodeType == 3 && n.data.trim());
    if (!own || ["STYLE", "title"].includes(node.tagName)) continue;
    const style = getComputedStyle(node);
    const one = luminance(node instanceof SVGElement ? style.fill : style.color);
    const other = luminance(behind(node));
    count += 1;
    least = Math.min(least, (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05));
  }
  const cards = [...document.querySelectorAll(".colabkit")];
  const result = {
    title: document.title, least, count, back: getComputedStyle(cards[0]).backgroundColor,
    too_wide: cards.some(card => card.scrollWidth > card.clientWidth + 1),
    images: document.querySelectorAll(".colabkit img").length,
  };
  const told = document.body.appendChild(document.createElement("pre"));
  told.id = "told";
  told.textContent = JSON.stringify(result);
}
window.addEventListener("load", measure);
</script>
"""
LIGHT_BACK, DARK_BACK = "rgb(255, 255, 255)", "rgb(27, 30, 36)"


def measured(page: str, *options: str) -> dict[str, object]:
    """Opens a page; returns what was measured, after checking that the console is silent."""
    done = browse(page.replace("</head>", MEASURE + "</head>", 1), "--dump-dom", *options)
    assert console(done) == []
    told = re.search(r'<pre id="told">(.*?)</pre>', done.stdout)
    assert told is not None
    return json.loads(told[1])


@pytest.fixture(scope="module")
def document():
    return executed()


@pytest.mark.parametrize("size", [NARROW, WIDE], ids=["narrow", "wide"])
@pytest.mark.parametrize(("theme", "back"), [("light", LIGHT_BACK), ("dark", DARK_BACK)])
def test_every_state_is_readable_fits_and_runs_nothing(theme, back, size):
    found = measured(gallery(theme=theme), size)
    assert found["count"] > 60
    assert found["least"] >= 4.5
    assert found["back"] == back
    assert not found["too_wide"]
    assert found["images"] == 0
    assert found["title"] == ""


@pytest.mark.parametrize(("theme", "back"), [("light", LIGHT_BACK), ("dark", DARK_BACK)])
def test_a_notebook_as_jupyterlab_draws_it_is_readable(document, theme, back):
    found = measured(rendered(document, theme=theme), NARROW)
    assert found["count"] > 150
    assert found["least"] >= 4.5
    assert found["back"] == back
    assert not found["too_wide"]


@pytest.mark.parametrize(
    ("attributes", "options", "back"),
    [
        ('<html theme="dark"><body>', (), DARK_BACK),
        ('<html theme="light"><body>', PREFERS_DARK, LIGHT_BACK),
        ('<html><body class="vscode-dark">', (), DARK_BACK),
        ("<html><body>", (), LIGHT_BACK),
        ("<html><body>", PREFERS_DARK, DARK_BACK),
    ],
    ids=["colab-dark", "colab-light", "vscode-dark", "plain", "system-dark"],
)
def test_the_theme_follows_the_page_and_else_the_system(attributes, options, back):
    page = gallery(theme="light").replace("<html>", attributes.partition("<body")[0])
    page = re.sub(r"<body[^>]*>", "<body" + attributes.partition("<body")[2], page)
    assert measured(page, *options)["back"] == back


@pytest.mark.parametrize(("age_s", "title"), [(-50, "runs/cats: finished · Mine"), (90, "Mine")])
def test_the_end_of_a_run_is_in_the_title_of_the_page_and_not_in_that_of_one_opened_later(
    age_s, title
):
    # The minute that it counts begins late: a browser may take long to open a page.
    script = notice_script("runs/cats: finished", sent_s=time.time() - age_s)
    page = f"<!doctype html><html><head><title>Mine</title></head><body>{script}</body></html>"
    done = browse(page, "--dump-dom")
    assert console(done) == []
    assert f"<title>{title}</title>" in done.stdout
