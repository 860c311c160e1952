"""What a user's source means: archives, a folder, URLs; and what to say when it is missing."""

from __future__ import annotations

import dataclasses
import enum
import glob
import os
import re
import stat
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from unicodedata import normalize
from urllib.parse import unquote

from colabkit.datasets.folders.listing import is_left_out
from colabkit.datasets.missing import missing
from colabkit.datasets.reading.shared_links import (
    drive_file,
    drive_folder,
    drive_link,
    file_behind,
    is_drive_id,
)
from colabkit.datasets.reading.split_names import (
    SplitArchive,
    folder_of,
    gathered,
    like_it,
    name_of,
    number_of,
    part_names,
)
from colabkit.datasets.reading.web import Access, is_web, urls_like, urls_that_exist
from colabkit.errors import ArgumentError, DatasetNotFoundError, StorageError
from colabkit.runtime import Platform, detect_platform
from colabkit.storage import (
    DriveMount,
    MountState,
    asked,
    locate_input,
    mount_of,
    names_in,
)

URL_HINT = "Check the address and the pattern."
_NAMES_SHOWN = 5
_PROBES = 8
SourceLike = str | os.PathLike[str]
_NUMBERS = r"\{(\d{1,9})\.\.(\d{1,9})\}"
_KAGGLE_PAGE = (
    r"https?://(?:www\.)?kaggle\.com/(?:datasets/([\w-]+/)|(?:competitions|c)/)([\w-]+)(?:[/?#].*)?"
)
_HUGGING_FACE_PAGE = (
    r"https?://(?:huggingface|hf)\.co/datasets/([\w.-]+/[\w.-]+)"
    r"(?:/tree/([\w.%-]+)((?:/[^/?#]+)*)|/viewer.*)?/?(?:[?#].*)?"
)


class SourceKind(enum.Enum):
    """What a dataset comes from."""

    ARCHIVES = "one archive or several"
    PARTS = "files named by a pattern or a list"
    FOLDER = "a folder"
    SERVICE = "what a service's own library downloads"
    MISSING = "nothing that can be reached now"


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What a source turned out to be.

    Attributes:
        name: Its absolute name, the same in every session.
        label: A short name for the user.
        kind: What it is.
        paths: The archives' paths or URLs in order, or the one folder.
        error: Why it cannot be reached; None when it can.
        splits: The archives among the paths that are in parts.
        note: What to say of how the source was understood.
    """

    name: str
    label: str
    kind: SourceKind
    paths: tuple[str, ...]
    error: Exception | None = None
    splits: tuple[SplitArchive, ...] = ()
    note: str = ""


def is_url(source: str) -> bool:
    """Whether a source is a URL.

    Example:
        >>> is_url("https://example.org/cats.zip"), is_url("MyDrive/cats.zip")
        (True, False)
    """
    return "://" in source


def with_parts(found: Found, access: Access) -> Found:
    """Returns a source with the parts of split archives put together."""
    if found.error is not None or found.kind not in {SourceKind.ARCHIVES, SourceKind.PARTS}:
        return found
    try:
        plain, splits = gathered(found.paths, _names_beside(found.paths, access))
    except OSError as error:
        message = f"The parts of {found.name} cannot be looked for ({error.strerror or error})."
        failure = StorageError(message, path=found.name, operation="list", hint=URL_HINT)
        return dataclasses.replace(found, kind=SourceKind.MISSING, error=failure)
    if not splits:
        return dataclasses.replace(found, note=_note_on_others(found))
    only = splits[0] if len(splits) == 1 and not plain else None
    return Found(
        name=found.name if only is None else only.name,
        label=found.label if only is None else only.label,
        kind=SourceKind.ARCHIVES,
        paths=(
            *plain,
            *(path for split in splits if split.are_whole for path in split.parts),
            *(split.name for split in splits if not split.are_whole),
        ),
        error=next((_parts_missing(split) for split in splits if split.missing), None),
        splits=tuple(split for split in splits if not split.are_whole),
    )


def _names_beside(paths: Sequence[str], access: Access) -> dict[str, Collection[str]]:
    """Returns the names in each folder that a part's siblings may have."""
    names: dict[str, Collection[str]] = {folder_of(path): () for path in paths}
    for path in paths:
        folder, number = folder_of(path), number_of(path)
        if number is None or names[folder]:
            continue
        if "://" in path and len(paths) > 1:
            names[folder] = [name_of(one) for one in paths if folder_of(one) == folder]
        elif "://" in path and (_may_be_whole(path) or part_names(path, number) is None):
            names[folder] = [name_of(path)]
        elif is_web(path):
            names[folder] = _names_on_web(path, number, access)
        elif "://" in path:
            names[folder] = [name_of(url) for url in urls_like(f"{folder}*", access)]
        elif len(paths) > 1 or number or _begins_with_parts(path):
            names[folder] = names_in(Path(folder))
    return names


def _may_be_whole(url: str) -> bool:
    """Whether a URL is a zip or rar of which only its content tells whether it has other parts."""
    return number_of(url) == 0 and name_of(url).lower().endswith((".zip", ".rar"))


def _begins_with_parts(path: str) -> bool:
    """Whether a zip or rar is one part of several, or a first part has others behind it."""
    first = Path(part_names(path, 1) or path)
    return first.with_suffix(first.suffix.upper()).exists() or first.exists()


def _names_on_web(url: str, number: int, access: Access) -> list[str]:
    """Returns the names of a part's siblings on a server, which is asked for each by its name."""

    def there(numbers: range) -> list[str]:
        return urls_that_exist([part_names(url, n) or url for n in numbers], access)

    if number > _PROBES and not there(range(2)):
        return [name_of(url)]  # a suffix of letters, as .bak, would be a part far behind
    found = [url, *there(range(number))]
    last = f"{url.partition('?')[0].rpartition('.')[0]}.zip"
    if part_names(last, number) == url.partition("?")[0]:
        found += urls_that_exist([last], access)
    first = number + 1
    while True:
        more = there(range(first, first + _PROBES))
        found += more
        first += _PROBES
        if len(more) < _PROBES:
            return list(dict.fromkeys(map(name_of, found)))


def _parts_missing(split: SplitArchive) -> DatasetNotFoundError:
    names = ", ".join(map(name_of, split.missing[:_NAMES_SHOWN]))
    names += ", ..." if len(split.missing) > _NAMES_SHOWN else ""
    message = (
        f"{split.name} is in parts, and of these {names} "
        f"{'is' if len(split.missing) == 1 else 'are'} missing in {folder_of(split.name)}."
    )
    hint = "Put all parts into one folder, and run this cell again."
    return DatasetNotFoundError(message, path=split.missing[0], hint=hint)


def _note_on_others(found: Found) -> str:
    """Returns what to say where one zip of several with numbers in their names is taken."""
    if len(found.paths) != 1 or is_url(found.paths[0]) or "*" in found.name:
        return ""
    path = found.paths[0]
    others = like_it(path, lambda: names_in(Path(folder_of(path))))
    if not others:
        return ""
    shown = ", ".join(others[:_NAMES_SHOWN]) + (", ..." if len(others) > _NAMES_SHOWN else "")
    return f"Only {name_of(path)} is taken; beside it there is {shown}: pass a pattern for all."


def find_source(
    source: SourceLike | Sequence[SourceLike],
    *,
    platform: Platform | None = None,
    access: Access | None = None,
    as_they_are: bool = False,
) -> Found:
    """Returns what a source means on this machine.

    Args:
        source: A path, a path on Drive by any of its names, a URL, a pattern with ``*``, or
            a list of these.
        platform: The kind of machine; found out by default.
        access: How to ask for what is behind a URL.
        as_they_are: Whether files are meant to be copied, also where they are parts of an archive.

    Raises:
        ArgumentError: It is no source at all.
    """
    platform = detect_platform() if platform is None else platform
    access = access or Access()

    are_urls = "://" in str(source)

    def look(*, mounts_again: bool) -> Found:
        found = _find(source, platform, access, mounts_again=mounts_again)
        return found if as_they_are else with_parts(found, access)

    def found_out(*, mounts_again: bool) -> Found:
        # Waiting for a server heeds Ctrl-C, and its library may ask Colab for a token.
        if are_urls:
            return look(mounts_again=mounts_again)
        return asked(lambda: look(mounts_again=mounts_again))

    if threading.current_thread() is not threading.main_thread():
        return look(mounts_again=False)
    try:
        return found_out(mounts_again=True)
    except _DriveIsLostError as lost:
        lost.mount.remount()
        return found_out(mounts_again=False)


class _DriveIsLostError(Exception):
    """The mount has to be mounted again, by the main thread; never leaves this module."""

    def __init__(self, mount: DriveMount) -> None:
        super().__init__(mount)
        self.mount = mount


def _find(
    source: SourceLike | Sequence[SourceLike],
    platform: Platform,
    access: Access,
    *,
    mounts_again: bool,
) -> Found:
    if isinstance(source, str | os.PathLike):
        return _find_one(os.fspath(source), platform, access, mounts_again=mounts_again)
    are_places = isinstance(source, Sequence) and all(
        isinstance(item, str | os.PathLike) for item in source
    )
    if not are_places or not source:
        message = f"source is a path, a URL or a list of them, not {source!r}."
        raise ArgumentError(message, argument="source")
    found = [
        _find_one(os.fspath(item), platform, access, mounts_again=mounts_again) for item in source
    ]
    if len(found) == 1:
        one = found[0]
        if one.kind is SourceKind.ARCHIVES and not is_url(one.name):
            # As a list of two: what is no archive is copied.
            return dataclasses.replace(one, kind=SourceKind.PARTS)
        return one
    names = [one.name for one in found]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        message = f"source names {twice} twice."
        raise ArgumentError(message, argument="source")
    for one in found:
        if one.kind in {SourceKind.FOLDER, SourceKind.SERVICE}:
            message = f"source is a list and names the folder {one.name}; a list is of files."
            raise ArgumentError(message, argument="source", hint="Pass the folder alone.")
    error = next((one.error for one in found if one.error is not None), None)
    paths = tuple(path for one in found for path in one.paths)
    kind = SourceKind.ARCHIVES if any(map(is_url, paths)) else SourceKind.PARTS
    kind = kind if error is None else SourceKind.MISSING
    return Found("|".join(names), f"{len(paths):,} files", kind, paths, error)


def _find_one(text: str, platform: Platform, access: Access, *, mounts_again: bool) -> Found:
    if not text:
        message = "source is empty."
        raise ArgumentError(message, argument="source", hint="Pass a path or a URL.")
    if is_url(text):
        if text.startswith("file://") and not Path(text.removeprefix("file://")).exists():
            text = unquote(text)  # as Path.as_uri writes it
        text = file_behind(text)
        return _of_service(text) or _find_url(text, access)
    path = locate_input(text, platform=platform).absolute()
    name = str(path)
    try:
        mode = _mode_of(path, mount_of(path, platform=platform) if mounts_again else None)
        if stat.S_ISDIR(mode):
            return Found(name, path.name, SourceKind.FOLDER, (name,))
    except OSError as reason:
        if glob.has_magic(name) and (matches := _matches(name)):
            is_folder = len(matches) == 1 and Path(matches[0]).is_dir()
            kind = SourceKind.FOLDER if is_folder else SourceKind.PARTS
            return Found(name, path.name, kind, matches)
        if part := _first_part(path):
            return Found(name, path.name, SourceKind.ARCHIVES, (part,))
        if other := _spelled_otherwise(path):
            return _find_one(str(other), platform, access, mounts_again=mounts_again)
        if is_drive_id(text):
            return _find_url(drive_link(text), access)
        error = missing(text, path, reason, platform)
        return Found(name, path.name, SourceKind.MISSING, (), error)
    return Found(name, path.name, SourceKind.ARCHIVES, (name,))


def _spelled_otherwise(path: Path) -> Path | None:
    """Returns what is there under this name with its accents written otherwise, as macOS does."""
    where = Path(path.anchor)
    for number, part in enumerate(path.parts[1:], 1):
        if glob.has_magic(part):
            where = where.joinpath(*path.parts[number:])
            break
        names = [part] if part.isascii() else names_in(where)
        same = [n for n in names if normalize("NFC", n) == normalize("NFC", part)]
        if not same:
            return None
        where /= part if part in same else same[0]
    return where if where != path else None


def _first_part(path: Path) -> str | None:
    """Returns the first part of an archive that is there in parts only."""
    names = [name for name in names_in(path.parent) if name.startswith(path.stem)]
    parts = [str(path.parent / name) for name in names if number_of(name) is not None]
    _, splits = gathered(parts, {folder_of(part): names for part in parts})
    return next((split.parts[0] for split in splits if split.name == str(path)), None)


def _of_service(text: str) -> Found | None:
    """Returns what a service's own library has to be asked for, None where it is anything else."""
    if found := re.fullmatch(_KAGGLE_PAGE, text):
        text = f"kaggle://{found[1] or 'competitions/'}{found[2]}"
    if found := re.fullmatch(_HUGGING_FACE_PAGE, text):
        revision = "" if found[2] in {None, "main"} else f"@{unquote(found[2])}"
        text = f"hf://datasets/{found[1]}{revision}{unquote(found[3] or '')}"
    text = text.replace("kaggle://datasets/", "kaggle://", 1)
    folder_id = drive_folder(text)
    if folder_id is not None:
        text = f"https://drive.google.com/drive/folders/{folder_id}"
    elif text.startswith("hf://"):
        inside = text.removeprefix("hf://datasets/").rstrip("/")
        is_file = "*" in inside or ("." in _label(inside) and inside.count("/") > 1)
        if inside == text or is_file:
            return None
    elif not text.startswith("kaggle://"):
        return None
    text = text.rstrip("/")
    return Found(text, _label(text), SourceKind.SERVICE, (text,))


def _find_url(text: str, access: Access) -> Found:
    if (file_id := drive_file(text)) is not None:
        link = drive_link(file_id)
        return Found(link, f"the shared file {file_id}", SourceKind.ARCHIVES, (link,))
    urls = _with_numbers(text)
    # Signed addresses have a star behind their question mark, as in filename*=UTF-8''cats.zip.
    is_pattern = "*" in (text.partition("?")[0] if is_web(text) else text)
    if is_pattern and is_web(text):
        message = f"{text}: a web server does not list its files."
        hint = 'Name them by their numbers, as "shard-{000..099}.tar", or pass a list of URLs.'
        raise ArgumentError(message, argument="source", hint=hint)
    if is_pattern:
        try:
            urls = [url for pattern in urls for url in urls_like(pattern, access)]
        except OSError as error:
            message = f"{text} cannot be listed ({error.strerror or error})."
            error_to_say = StorageError(message, path=text, operation="list", hint=URL_HINT)
            return Found(text, _label(text), SourceKind.MISSING, (), error_to_say)
        if not urls:
            message = f"Nothing is called {text}."
            nothing = DatasetNotFoundError(message, path=text, hint=URL_HINT)
            return Found(text, _label(text), SourceKind.MISSING, (), nothing)
    return Found(text, _label(text), SourceKind.ARCHIVES, tuple(urls))


def _with_numbers(url: str) -> list[str]:
    """Returns the URLs that a range in braces stands for, as bash and WebDataset write it.

    Example:
        >>> _with_numbers("https://host/{08..10}.tar")
        ['https://host/08.tar', 'https://host/09.tar', 'https://host/10.tar']
    """
    found = re.search(_NUMBERS, url)
    if found is None:
        return [url]
    first, last = found.groups()
    width = len(first) if first.startswith("0") else 0
    numbers = [f"{number:0{width}}" for number in range(int(first), int(last) + 1)]
    rest = _with_numbers(url[found.end() :])
    return [f"{url[: found.start()]}{number}{end}" for number in numbers for end in rest]


def _mode_of(path: Path, mount: DriveMount | None) -> int:
    """Returns what a path is.

    Raises:
        _DriveIsLostError: Its mount is lost, and worth a try to mount it again.
        OSError: It cannot be looked at.
    """
    try:
        return path.stat().st_mode
    except OSError as error:
        if mount is None or mount.probe() is not MountState.LOST:
            raise
        raise _DriveIsLostError(mount) from error


def _matches(name: str) -> tuple[str, ...]:
    """Returns what a pattern names; what a folder's listing leaves out is nothing."""
    # A folder that is there is meant as it is called, though its name has brackets.
    above = next(folder for folder in Path(name).parents if folder.is_dir())
    pattern = f"{glob.escape(str(above))}/{Path(name).relative_to(above)}"
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - absolute names are wanted
    return tuple(path for path in found if not is_left_out(os.path.basename(path)))  # noqa: PTH119


def _label(url: str) -> str:
    return re.split(r"[?#]", url.rstrip("/"))[0].rpartition("/")[2] or url
