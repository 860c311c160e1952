"""Links to pages that show a file, as they are copied from a browser, and the file behind each."""

from __future__ import annotations

import re
import urllib.parse

# (which paths, what leads to the file) by host.
_PAGES = {
    "github.com": (re.compile(r"(/[^/]+/[^/]+)/blob/(.+)"), r"\1/raw/\2"),
    "gitlab.com": (re.compile(r"(/.+)/-/blob/(.+)"), r"\1/-/raw/\2"),
    "huggingface.co": (re.compile(r"(/.+)/blob/(.+)"), r"\1/resolve/\2"),
}
_DROPBOX = "dropbox.com"


def file_behind(url: str) -> str:
    """Returns the address of the file that a link's page shows; of any other link, itself.

    Example:
        >>> file_behind("https://github.com/zoo/cats/blob/main/cats.zip")
        'https://github.com/zoo/cats/raw/main/cats.zip'
        >>> file_behind("https://www.dropbox.com/s/1ab/cats.zip?dl=0")
        'https://www.dropbox.com/s/1ab/cats.zip?dl=1'
    """
    parts = urllib.parse.urlsplit(url)
    host = (parts.hostname or "").removeprefix("www.")
    if host == _DROPBOX:
        asked = [pair for pair in parts.query.split("&") if pair and not pair.startswith("dl=")]
        return urllib.parse.urlunsplit(parts._replace(query="&".join([*asked, "dl=1"])))
    if host not in _PAGES:
        return url
    pattern, form = _PAGES[host]
    if (found := pattern.fullmatch(parts.path)) is None:
        return url
    return urllib.parse.urlunsplit(parts._replace(path=found.expand(form)))
