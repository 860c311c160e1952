"""Builds the site into build/docs: guides in two languages, the gallery, the API, limits, versions.

``python docs/build_site.py [FOLDER]``. The pages are those of the repository, as they are: links
between them are turned to where each page stands on the site, and those to files that are not on
it become plain names, or links to the repository once ``Repository`` in pyproject.toml's
``[project.urls]`` says where that is.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_HOME = _PROJECT.get("urls", {}).get("Repository", "").rstrip("/")
REPOSITORY = f"{_HOME}/blob/main" if _HOME else ""
"""Where the repository's files are on the web, without a slash at the end; "" while nowhere."""
_SITE = _PROJECT.get("urls", {}).get("Documentation", "").rstrip("/")
SITE = f'site_url = "{_SITE}/"' if _SITE else ""
"""Where the site is; the page of a wrong address, which may be at any depth, links from there."""

GUIDES = {
    "index": ("README.md", "Start here", "从这里开始"),
    "first-ten-minutes": ("docs/first-ten-minutes.md", "The first ten minutes", "最初的十分钟"),
    "migration": ("docs/migration.md", "Coming from elsewhere", "从别处来"),
    "training": ("docs/training.md", "Training", "训练"),
    "datasets": ("docs/datasets.md", "Datasets", "数据集"),
    "trainers": ("docs/trainers.md", "Your trainer, kept", "别的训练器"),
    "devices": ("docs/devices.md", "Several devices", "多个设备"),
    "checkpoints": ("docs/checkpoints.md", "Checkpoints", "检查点"),
    "volumes": ("docs/volumes.md", "Any volume", "任何存储"),
    "own-machine": ("docs/own-machine.md", "On your own machine", "在自己的机器上"),
    "gallery/index": ("docs/gallery.md", "The gallery", "示例笔记本"),
    "troubleshooting": ("docs/troubleshooting.md", "When something fails", "出错时"),
    "limits": ("docs/limits.md", "Limits", "局限"),
    "figures": ("docs/figures.md", "Figures", "数据"),
}
INSIDE = {
    "inside/architecture": ("ARCHITECTURE.md", "Architecture"),
    "inside/format": ("docs/format.md", "The run folder, a specification"),
    "inside/contributing": ("CONTRIBUTING.md", "Contributing"),
    "inside/security": ("SECURITY.md", "Security"),
    "versions": ("CHANGELOG.md", "Versions"),
}
GALLERY = {
    "quickstart_pytorch": "PyTorch in five minutes",
    "quickstart_keras": "Keras in five minutes",
    "quickstart_jax": "JAX in five minutes",
    "boosters": "Boosters",
    "own_loop": "A GAN in a loop of its own",
    "fine_tuning": "Fine-tuning in two phases",
    "hf_trainer": "Hugging Face's Trainer with LoRA",
    "yolo": "YOLO",
    "lightning": "Lightning",
    "cloned_script": "A cloned script",
    "kaggle_sessions": "Kaggle across sessions",
    "datasets": "Datasets",
    "survive_a_disconnect": "Survive a disconnect",
}
_LINK = re.compile(r"(\]\()([^)\s#]*)(#[^)\s]*)?(\))")
_CONFIG = """\
[project]
site_name = "colabkit"
site_description = "Training in notebooks that vanish: run all cells again, and it goes on."
{site}
docs_dir = "pages"
site_dir = "site"
use_directory_urls = false
nav = [
{nav}
]

[project.theme]
language = "en"
font = false
features = ["navigation.tabs", "navigation.top", "content.code.copy", "search.highlight"]

[[project.theme.palette]]
media = "(prefers-color-scheme: light)"
scheme = "default"
toggle = {{ icon = "lucide/sun", name = "Dark" }}

[[project.theme.palette]]
media = "(prefers-color-scheme: dark)"
scheme = "slate"
toggle = {{ icon = "lucide/moon", name = "Light" }}

[project.markdown_extensions.tables]
[project.markdown_extensions.md_in_html]
[project.markdown_extensions.pymdownx.highlight]
[project.markdown_extensions.pymdownx.superfences]
[project.markdown_extensions.toc]
permalink = true
slugify = {{ object = "pymdownx.slugs.slugify", kwds = {{ case = "lower" }} }}
"""


def sources() -> dict[str, str]:
    """Returns where each page of the site comes from, by its place there."""
    pages = {f"{place}.md": file for place, (file, _, _) in GUIDES.items()}
    for place, (file, _, _) in GUIDES.items():
        other = "README.zh-CN.md" if place == "index" else f"docs/zh-CN/{Path(file).name}"
        if (ROOT / other).is_file():
            pages[f"zh-CN/{place}.md"] = other
    pages |= {f"{place}.md": file for place, (file, _) in INSIDE.items()}
    for file in sorted((ROOT / "docs/decisions").glob("*.md")):
        name = "index" if file.stem == "README" else file.stem
        pages[f"inside/decisions/{name}.md"] = f"docs/decisions/{file.name}"
    return pages | {f"gallery/{name}.md": f"notebooks/{name}.ipynb" for name in GALLERY}


def turned(text: str, file: str, place: str, places: dict[str, str]) -> str:
    """Returns a page whose links lead to where the pages are on the site.

    Args:
        text: The page in Markdown.
        file: Where it lies in the repository.
        place: Where it stands on the site.
        places: Where each file of the repository stands there.
    """

    def turn(found: re.Match[str]) -> str:
        target, anchor = found[2], found[3] or ""
        if not target or "://" in target or target.startswith("mailto:"):
            return found[0]
        wanted = posixpath.normpath(posixpath.join(posixpath.dirname(file), target))
        if wanted in places:
            to = posixpath.relpath(places[wanted], posixpath.dirname(place) or ".")
            return f"{found[1]}{to}{anchor}{found[4]}"
        return f"]({REPOSITORY}/{wanted}{anchor})" if REPOSITORY else "](#)"

    turned_text = _LINK.sub(turn, text)
    # A link that leads nowhere is no link.
    return re.sub(r"(?<!!)\[([^\]]*)\]\(#\)", r"\1", turned_text)


def write_pages(folder: Path) -> list[str]:
    """Writes every page and picture into a folder; returns the places of the pages."""
    pages = sources()
    places = {file: place for place, file in pages.items()}
    for picture in sorted((ROOT / "notebooks/images").glob("*.*")):
        name = f"images/{picture.name}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, folder / name)
        places[f"notebooks/images/{picture.name}"] = name
    for place, file in pages.items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        text = _notebook(file, target) if file.endswith(".ipynb") else (ROOT / file).read_text()
        target.write_text(turned(text, file, place, places), encoding="utf-8")
    return list(pages)


def _notebook(file: str, target: Path) -> str:
    """Returns a notebook as a page; its pictures are laid beside it."""
    notebook = nbformat.read(ROOT / file, as_version=4)
    text, resources = MarkdownExporter().from_notebook_node(notebook)
    for name, data in resources["outputs"].items():
        unique = f"{target.stem}-{name}"
        (target.parent / unique).write_bytes(data)
        text = text.replace(f"({name})", f"({unique})")
    # Tables of styles are for notebooks: a page has its own.
    return re.sub(r"<style.*?</style>", "", str(text), flags=re.DOTALL)


def navigation(pages: list[str]) -> Iterator[str]:
    """Yields the lines of the navigation, as TOML."""
    guides = [(title, f"{place}.md") for place, (_, title, _) in GUIDES.items()]
    chinese = [(title, f"zh-CN/{place}.md") for place, (_, _, title) in GUIDES.items()]
    inside = [(title, f"{place}.md") for place, (_, title) in INSIDE.items()]
    inside += [("Decisions", "inside/decisions/index.md")]
    gallery = [(title, f"gallery/{name}.md") for name, title in GALLERY.items()]
    for title, each in (
        ("Guides", guides),
        ("Gallery", gallery),
        ("Inside", inside),
        ("中文", chinese),
    ):
        rows = ", ".join(f'{{ "{name}" = "{place}" }}' for name, place in each if place in pages)
        yield f'  {{ "{title}" = [{rows}] }},'
    yield '  { "API" = "api/colabkit.html" },'


def build(folder: Path) -> None:
    """Builds the whole site into a folder, in place of a site that is there.

    Raises:
        SystemExit: Something else is there.
    """
    if folder.exists() and not (folder / "api/colabkit.html").is_file() and any(folder.iterdir()):
        message = f"{folder} holds something else than the site: name an empty folder."
        raise SystemExit(message)
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        pages = write_pages(work / "pages")
        (work / "zensical.toml").write_text(
            _CONFIG.format(nav="\n".join(navigation(pages)), site=SITE)
        )
        run = [Path(sys.executable).parent / "zensical", "build", "--strict"]
        subprocess.run(run, cwd=work, check=True)  # noqa: S603  # ours
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(work / "site", folder)
    reference = ["--docformat", "google", "--output-directory", str(folder / "api"), "colabkit"]
    subprocess.run([sys.executable, "-m", "pdoc", *reference], cwd=ROOT, check=True)  # noqa: S603  # ours


if __name__ == "__main__":
    build(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build/docs").resolve())
