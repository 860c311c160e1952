"""What a user's source means: archives, a folder, URLs; and what to say when it is missing."""

from __future__ import annotations

import dataclasses
import errno
import glob
import os
import re
import stat
import threading
from collections.abc import Sequence
from pathlib import Path

from colabkit.datasets.folders.listing import is_left_out
from colabkit.datasets.found import Found, SourceKind, is_url
from colabkit.datasets.reading.access import Access
from colabkit.datasets.reading.drive_links import drive_file, drive_folder, drive_link, is_drive_id
from colabkit.datasets.reading.page_links import file_behind
from colabkit.datasets.reading.split_names import folder_of, gathered, number_of
from colabkit.datasets.reading.web import urls_like
from colabkit.datasets.split_sources import URL_HINT, with_parts
from colabkit.errors import ArgumentError, DatasetNotFoundError, StorageError
from colabkit.runtime import Platform, detect_platform
from colabkit.storage import (
    DriveMount,
    MountState,
    locate,
    locate_input,
    mount_of,
    names_in,
    near_names,
)

SourceLike = str | os.PathLike[str]

_NUMBERS = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
_KAGGLE_PAGE = re.compile(
    r"https?://(?:www\.)?kaggle\.com/(?:datasets/([\w-]+/)|(?:competitions|c)/)([\w-]+)(?:[/?#].*)?"
)
_HUGGING_FACE_PAGE = re.compile(
    r"https?://huggingface\.co/datasets/([\w.-]+/[\w.-]+)(?:/tree/[\w.-]+)?/?"
)


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
    found = _find(source, platform, access)
    return found if as_they_are else with_parts(found, access)


def _find(source: SourceLike | Sequence[SourceLike], platform: Platform, access: Access) -> Found:
    if isinstance(source, str | os.PathLike):
        return _find_one(os.fspath(source), platform, access)
    are_places = isinstance(source, Sequence) and all(
        isinstance(item, str | os.PathLike) for item in source
    )
    if not are_places or not source:
        message = f"source is a path, a URL or a list of them, not {source!r}."
        raise ArgumentError(message, argument="source")
    found = [_find_one(os.fspath(item), platform, access) for item in source]
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


def _find_one(text: str, platform: Platform, access: Access) -> Found:
    if not text:
        message = "source is empty."
        raise ArgumentError(message, argument="source", hint="Pass a path or a URL.")
    if is_url(text):
        text = file_behind(text)
        return _of_service(text) or _find_url(text, access)
    path = locate_input(text, platform=platform).absolute()
    name = str(path)
    try:
        mode = _mode_of(path, mount_of(path, platform=platform))
        if stat.S_ISDIR(mode):
            return Found(name, path.name, SourceKind.FOLDER, (name,))
    except OSError as reason:
        if glob.has_magic(name) and (matches := _matches(name)):
            is_folder = len(matches) == 1 and Path(matches[0]).is_dir()
            kind = SourceKind.FOLDER if is_folder else SourceKind.PARTS
            return Found(name, path.name, kind, matches)
        if part := _first_part(path):
            return Found(name, path.name, SourceKind.ARCHIVES, (part,))
        if is_drive_id(text):
            return _find_url(drive_link(text), access)
        error = _missing(text, path, reason, platform)
        return Found(name, path.name, SourceKind.MISSING, (), error)
    return Found(name, path.name, SourceKind.ARCHIVES, (name,))


def _first_part(path: Path) -> str | None:
    """Returns the first part of an archive that is there in parts only."""
    names = [name for name in names_in(path.parent) if name.startswith(path.stem)]
    parts = [str(path.parent / name) for name in names if number_of(name) is not None]
    _, splits = gathered(parts, {folder_of(part): names for part in parts})
    return next((split.parts[0] for split in splits if split.name == str(path)), None)


def _of_service(text: str) -> Found | None:
    """Returns what a service's own library has to be asked for, None where it is anything else."""
    if found := _KAGGLE_PAGE.fullmatch(text):
        text = f"kaggle://{found[1] or 'competitions/'}{found[2]}"
    if found := _HUGGING_FACE_PAGE.fullmatch(text):
        text = f"hf://datasets/{found[1]}"
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
    scheme = text.partition("://")[0]
    if "*" in text and scheme in {"http", "https"}:
        message = f"{text}: a web server does not list its files."
        hint = 'Name them by their numbers, as "shard-{000..099}.tar", or pass a list of URLs.'
        raise ArgumentError(message, argument="source", hint=hint)
    if "*" in text:
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
    found = _NUMBERS.search(url)
    if found is None:
        return [url]
    first, last = found.groups()
    width = len(first) if first.startswith("0") else 0
    numbers = [f"{number:0{width}}" for number in range(int(first), int(last) + 1)]
    rest = _with_numbers(url[found.end() :])
    return [f"{url[: found.start()]}{number}{end}" for number in numbers for end in rest]


def _mode_of(path: Path, mount: DriveMount | None) -> int:
    """Returns what a path is; a mount that is lost is mounted again first."""
    try:
        return path.stat().st_mode
    except OSError:
        on_main = threading.current_thread() is threading.main_thread()
        if mount is None or not on_main or mount.look() is not MountState.LOST:
            raise
        mount.mend()
        return path.stat().st_mode


def _matches(name: str) -> tuple[str, ...]:
    """Returns what a pattern names; what a folder's listing leaves out is nothing."""
    # A folder that is there is meant as it is called, though its name has brackets.
    above = next(folder for folder in Path(name).parents if folder.is_dir())
    pattern = f"{glob.escape(str(above))}/{Path(name).relative_to(above)}"
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - absolute names are wanted
    return tuple(path for path in found if not is_left_out(os.path.basename(path)))  # noqa: PTH119


def _label(url: str) -> str:
    return re.split(r"[?#]", url.rstrip("/"))[0].rpartition("/")[2] or url


def _missing(text: str, path: Path, reason: OSError, platform: Platform) -> Exception:
    mount = mount_of(text, platform=platform)
    hint = "Run colabkit.mount(), then this cell again."
    if mount is not None and mount.state is not MountState.MOUNTED:
        message = f"{text} cannot be reached: Google Drive is {mount.state.value}."
        return DatasetNotFoundError(message, path=path, hint=hint)
    if reason.errno in {errno.ENOTCONN, errno.EIO}:
        message = f"{text} cannot be reached: {os.strerror(reason.errno)}."
        return DatasetNotFoundError(message, path=path, hint=hint)
    above = next((p for p in path.parents if p.is_dir()), Path("/"))
    wanted = path.relative_to(above).parts[0]
    names = names_in(above)
    if wanted in names:
        message = f"{text} cannot be reached: {reason.strerror} ({path})."
        hint = f"{above / wanted} is there: check that it can be read, and is no broken link."
        return DatasetNotFoundError(message, path=path, hint=hint)
    near = near_names(wanted, names)
    message = f"There is no {text}"
    if str(path) != text:
        message += f" ({path})"
    message += "; Google Drive is mounted." if mount is not None else "."
    if path.parent != above:
        message += f" The folder {above} is there, {wanted!r} in it is not."
    if near:
        hint = f"In {above} there is {', '.join(repr(name) for name in near)}."
    else:
        hint = f"Nothing in {above} has a name like {wanted!r}."
    if _is_on_drive(text, platform):
        hint = f'It is on Google Drive: pass "MyDrive/{text}".'
    return DatasetNotFoundError(message, path=path, near_names=near, hint=hint)


def _is_on_drive(text: str, platform: Platform) -> bool:
    """Whether a name that is missing here is there at the top of the mounted Drive."""
    on_drive = f"MyDrive/{text}"
    mount = mount_of(on_drive, platform=platform)
    if mount is None or mount.state is not MountState.MOUNTED or Path(text).is_absolute():
        return False
    return locate(on_drive, platform=platform).exists()
