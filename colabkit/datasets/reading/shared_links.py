"""Links that people share: the file behind a page that shows it, and what Google Drive answers."""

from __future__ import annotations

import errno
import re
import time
import urllib.parse

from colabkit.errors import DatasetNotFoundError, StorageError

# (which paths, what leads to the file) by host.
_PAGES = {
    "github.com": (r"(/[^/]+/[^/]+)/blob/(.+)", r"\1/raw/\2"),
    "gitlab.com": (r"(/.+)/-/blob/(.+)", r"\1/-/raw/\2"),
    "huggingface.co": (r"(/.+)/blob/(.+)", r"\1/resolve/\2"),
}
_DROPBOX = "dropbox.com"
# github.com/wkentaro/gdown names the same places; Google documents none of them.
ASK = "https://drive.google.com/uc?export=download&id={}"
_HOSTS = frozenset({"drive.google.com", "docs.google.com", "drive.usercontent.google.com"})
# A school's or company's own links name its domain, /a/uni.edu/.
_FILE = r"/(?:a/[^/]+/)?(?:u/\d+/)?(?:file|uc)/?(?:u/\d+/)?(?:d/)?(?P<id>[\w-]{10,})?(?:/.*)?"
_FOLDER = r"(?:/a/[^/]+)?/drive/(?:u/\d+/|mobile/)*folders/(?P<id>[\w-]{10,})"
# As long as they are given: 33 today, 44 for Google's own documents, 28 before 2017.
_ID = r"(?a:1[\w-]{32}|1[\w-]{43}|0B[\w-]{26})"
# Of 32 characters out of 64, one is a sign on average; more than this in one of 300.
_SIGNS_MAX = 4
_FOLDER_VIEWS = ("/folderview", "/embeddedfolderview")
_FORM = r'(?s)<form[^>]*id="download-form"[^>]*action="(?P<action>[^"]+)"'
_FIELD = r'<input[^>]*type="hidden"[^>]*name="([^"]+)"[^>]*value="([^"]*)"'
_TITLE = r"(?si)<title>(.*?)</title>"
_TOO_MANY_REQUESTS, _SERVER_ERRORS = 429, 500
_CONFIRMATIONS_MAX = 3
_PAGE_BYTES_MAX = 1 << 20
_TIMEOUT_S = 60.0
# The answer names a time after which it has to be asked for again.
_GOOD_FOR_S = 600.0
_COPY = (
    "Make a copy of it in your own Drive (right-click, Make a copy) and pass that by its path, as"
    ' "MyDrive/Copy of cats.zip": what is yours has no such limit.'
)

_answers: dict[str, tuple[float, str]] = {}


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
    if (found := re.fullmatch(pattern, parts.path)) is None:
        return url
    return urllib.parse.urlunsplit(parts._replace(path=found.expand(form)))


def drive_file(url: str) -> str | None:
    """Returns the id of the file that a link of Drive leads to, None where it is no such link.

    Example:
        >>> drive_file("https://drive.google.com/file/d/1aB_0123456789/view?usp=sharing")
        '1aB_0123456789'
    """
    parts = urllib.parse.urlsplit(url)
    if parts.hostname not in _HOSTS:
        return None
    query = urllib.parse.parse_qs(parts.query)
    if parts.path.endswith(_FOLDER_VIEWS):
        return None
    if "id" in query:
        return query["id"][0]
    found = re.fullmatch(_FILE, parts.path)
    return found["id"] if found else None


def drive_folder(url: str) -> str | None:
    """Returns the id of the folder that a link of Drive leads to, None where it is no such link.

    Example:
        >>> drive_folder("https://drive.google.com/drive/folders/1aB_0123456789?usp=sharing")
        '1aB_0123456789'
    """
    parts = urllib.parse.urlsplit(url)
    if parts.hostname not in _HOSTS:
        return None
    if parts.path.endswith(_FOLDER_VIEWS):
        return urllib.parse.parse_qs(parts.query).get("id", [None])[0]
    found = re.match(_FOLDER, parts.path)
    return found["id"] if found else None


def is_drive_id(text: str) -> bool:
    """Whether a word can be nothing but the id of a file on Drive.

    Drawn at random, an id has both capitals and small letters, and few signs between them.

    Example:
        >>> is_drive_id("1ZXEhzbLRLU1giKKRJkjm8N04cO_JoYE2"), is_drive_id("cats")
        (True, False)
    """
    is_mixed = text.upper() != text != text.lower()
    signs = text.count("_") + text.count("-")
    return bool(re.fullmatch(_ID, text)) and is_mixed and signs <= _SIGNS_MAX


def drive_link(file_id: str) -> str:
    """Returns the one link by which a file on Drive is known here."""
    return f"https://drive.google.com/file/d/{file_id}/view"


def drive_download(file_id: str) -> str:
    """Returns the address from which a shared file can be read, Google's questions answered.

    Raises:
        DatasetNotFoundError: It does not exist, or not for everybody with the link.
        StorageError: Google does not give it now.
        OSError: Google cannot be reached.
    """
    now_s = time.monotonic()
    asked_s, address = _answers.get(file_id, (-_GOOD_FOR_S, ""))
    if now_s - asked_s < _GOOD_FOR_S:
        return address
    address = ASK.format(file_id)
    for _ in range(_CONFIRMATIONS_MAX):
        page, reached = _asked(address, file_id)
        if page is None:
            _answers[file_id] = now_s, reached
            return reached
        form = re.search(_FORM, page)
        if form is None:
            raise _refusal(file_id, page, reached)
        fields = {name: _unescaped(value) for name, value in re.findall(_FIELD, page)}
        action = urllib.parse.urljoin(reached, _unescaped(form["action"]))
        query = urllib.parse.parse_qsl(urllib.parse.urlsplit(action).query)
        address = f"{action.partition('?')[0]}?{urllib.parse.urlencode([*query, *fields.items()])}"
    raise _refusal(file_id, "", address)


def _unescaped(text: str) -> str:
    import html  # its table of names takes longer to load than a small archive to unpack

    return html.unescape(text)


def _asked(address: str, file_id: str) -> tuple[str | None, str]:
    """Returns the page that Google answers with, None where it is the file, and from where."""
    import urllib.error
    import urllib.request

    request = urllib.request.Request(  # noqa: S310 - https, from a constant or Google's own form
        address, headers={"Range": "bytes=0-0", "User-Agent": "Mozilla/5.0"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            is_page = answer.headers.get_content_type() == "text/html"
            if "Content-Disposition" in answer.headers or not is_page:
                return None, answer.geturl()
            return answer.read(_PAGE_BYTES_MAX).decode("utf-8", "replace"), answer.geturl()
    except urllib.error.HTTPError as error:
        page = error.read(_PAGE_BYTES_MAX).decode("utf-8", "replace")
        if error.code >= _SERVER_ERRORS:
            raise OSError(errno.EIO, f"Google answers {error.code}", address) from error
        raise _refusal(file_id, page, error.geturl(), error.code) from error
    except urllib.error.URLError as error:
        reason = error.reason
        if isinstance(reason, OSError):
            raise reason from error
        raise OSError(errno.EIO, str(reason), address) from error


def _refusal(
    file_id: str, page: str, reached: str, status: int = 200
) -> StorageError | DatasetNotFoundError:
    """Returns what to say of a page that is neither the file nor a question."""
    link = drive_link(file_id)
    title = _unescaped(found[1]).strip() if (found := re.search(_TITLE, page)) else ""
    text = f"{title} {page}".lower()
    if "too many users" in text:
        message = f"Too many users have downloaded {link} lately: Google gives it to nobody now."
        hint = f"It may take a day. {_COPY}"
    elif "quota" in text:
        message = f"The download quota of {link} is used up: Google gives it to nobody now."
        hint = f"It may take a day. {_COPY}"
    elif "automated queries" in text or status == _TOO_MANY_REQUESTS:
        message = f"Google takes this machine for a robot and does not give {link}."
        hint = f"Wait an hour, or take another machine. {_COPY}"
    elif status in {404, 410} or "does not exist" in text:
        message = f"There is no file {link}: it was deleted, or the link is not whole."
        return DatasetNotFoundError(message, path=link, hint="Copy the link again.")
    elif (
        status in {401, 403}
        or "accounts.google.com" in reached
        or "sign in" in text
        or "need access" in text
    ):
        message = f"{link} is not shared with everybody who has the link."
        hint = (
            'Its owner sets "Anyone with the link" under Share; or add a shortcut to it to your'
            ' own Drive, run colabkit.mount(), and pass "MyDrive/NAME".'
        )
    else:
        told = f' ("{title}")' if title else ""
        message = f"Google answers with a page{told} instead of the file {link}."
        hint = f"Open the link in a browser to see why. {_COPY}"
    return StorageError(message, path=link, operation="open", hint=hint)
