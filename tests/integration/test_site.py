"""The site is built, every link on it leads somewhere, and errors are named by their own words."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

import colabkit
from tests.abilities import package

ROOT = Path(__file__).parents[2]
PACKAGE = Path(colabkit.__file__).parent
OUTSIDE = ("http://", "https://", "mailto:", "data:", "javascript:")
# Words of Colab, Drive and the frameworks, and not of our own.
OF_OTHERS = re.compile(
    "Transport endpoint|mount failed|drive.mount|Mountpoint must|quota exceeded|Too many users|"
    "No space left|Errno 5|Cannot connect|CUDA out|Your session crashed|DataLoader worker|"
    "numpy.dtype|EOFError"
)


class Page(HTMLParser):
    """The links of a page, and what they can lead to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in {"id", "name"} and value:
                self.anchors.add(value)
            elif name in {"href", "src"} and value and not value.startswith(OUTSIDE):
                self.links.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for name in ("zensical", "nbconvert", "pdoc"):
        package(name).require()
    folder = tmp_path_factory.mktemp("site") / "docs"
    subprocess.run([sys.executable, ROOT / "docs/build_site.py", folder], check=True)
    return folder


def test_every_link_of_the_site_leads_somewhere(site):
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert {"index.html", "troubleshooting.html"} <= {path.name for path in pages}
    assert (site / "zh-CN/index.html") in pages
    assert (site / "gallery/survive_a_disconnect.html") in pages
    dead = []
    for path, page in pages.items():
        for link in page.links:
            target, _, anchor = link.partition("#")
            there = (path.parent / unquote(target.partition("?")[0])).resolve() if target else path
            is_known = there.exists() and (
                not anchor or there not in pages or unquote(anchor) in pages[there].anchors
            )
            if not is_known:
                dead.append(f"{path.relative_to(site)}: {link}")
    assert not dead


def test_the_page_of_a_wrong_address_links_from_the_root_and_not_from_where_it_stands(site):
    links = [link.partition("#")[0] for link in Page(site / "404.html").links]
    links = [link for link in links if link]
    assert "/index.html" in links
    assert not [link for link in links if not link.startswith("/")]
    assert not [link for link in links if link != "/" and not (site / unquote(link[1:])).exists()]


@pytest.mark.parametrize("file", ["troubleshooting.md", "zh-CN/troubleshooting.md"])
def test_errors_are_told_by_the_words_that_they_have(file):
    trees = [ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")]
    constants = [
        each for tree in trees for each in ast.walk(tree) if isinstance(each, ast.Constant)
    ]
    said = "\n".join(str(each.value) for each in constants)
    rows = re.findall(r"^\| (.*?) \|", (ROOT / "docs" / file).read_text(), flags=re.MULTILINE)
    words = [word for row in rows for word in re.findall(r"`([^`]+)`", row)]
    ours = [word for word in words if not OF_OTHERS.search(word)]
    assert len(ours) >= 8
    for word in ours:
        # A message is put together: names and numbers stand where the page has dots.
        for part in re.split(r"…|\bloss\b|\bnan\b", word):
            assert part.strip(" .") in said, word
