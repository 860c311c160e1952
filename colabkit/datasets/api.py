"""dataset(): an archive or a folder becomes a verified folder on the local disk, once."""

from __future__ import annotations

import codecs
import dataclasses
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from colabkit.datasets.archives.safety import Limits
from colabkit.datasets.cache.slots import Slot, cache_folder, slot_for
from colabkit.datasets.call import Call
from colabkit.datasets.origins.resolver import DatasetRequest
from colabkit.datasets.other_names import OF_DATASET
from colabkit.datasets.reading.web import Access
from colabkit.datasets.resolve import Found, SourceKind, SourceLike, find_source
from colabkit.errors import ArgumentError
from colabkit.other_names import answering
from colabkit.storage import asked, interrupts_as_such, mount_of

_MD5, _SHA256 = r"[0-9a-f]{32}", r"[0-9a-f]{64}"


@answering(OF_DATASET)
def dataset(
    source: SourceLike | Sequence[SourceLike],
    dest: str | os.PathLike[str] | None = None,
    *,
    sha256: str | None = None,
    refresh: bool = False,
    members: str | Sequence[str] | None = None,
    progress: bool = True,
    verify: Literal["quick", "full"] = "quick",
    pack: bool = False,
    evict: bool = False,
    password: str | bytes | None = None,
    limits: Limits | None = None,
    encoding: str | None = None,
    headers: Mapping[str, str] | None = None,
    token: str | None = None,
    anonymous: bool = False,
    md5: str | None = None,
    unpack: bool = True,
    subfolders: bool = False,
    nested: bool = False,
) -> Path:
    """Makes an archive or a folder a verified folder on the local disk, once.

    The second call verifies what is there and returns within milliseconds. A call that was
    killed is continued by the next. Of two processes one works and the other waits.

    Args:
        source: An archive (zip, tar, ...), a folder, a URL, a pattern such as
            ``"MyDrive/shards/*.tar"`` or ``"https://host/shard-{000..099}.tar"``, or a list; of an
            archive in parts any one. A link to a file or folder that is shared on Google Drive,
            ``"kaggle://owner/name"`` and ``"hf://datasets/owner/name"`` are read by gdown,
            kagglehub and huggingface_hub, where their own libraries are needed.
            Several archives are unpacked into one tree; files that are none, as
            ``"MyDrive/export/*.tif"``, ``.npz`` or ``.csv``, are copied. Files that are still
            being written are left out, and said.
        dest: The folder to make; one in the machine's cache by default.
        sha256: The archive's SHA-256 in hex; another archive is refused.
        refresh: Make it anew even when it is there already.
        members: Take only these: names or patterns, as ``"train/*"``; all but those that begin
            with ``!``, as ``"!*.tmp"``.
        progress: False shows nothing, and says only what was left out.
        verify: "quick" checks the manifest and every folder against it, and sees every file
            that came, went or was renamed; "full" reads every byte and sees changes in place.
        pack: Pack a folder of many small files once into one archive beside it, and use that
            from then on.
        evict: Delete older unpacked datasets when room is short, never one in use.
        password: For encrypted archives, as text or as the very bytes.
        limits: What counts as a bomb; pass larger ones for an unusual archive that you trust.
        encoding: Of names that do not tell theirs, as "gbk"; judged by all of them by default.
            Pass it with ``refresh=True`` where names came out wrong.
        headers: Sent to a web server with each request.
        token: For a web server (as a bearer's), Hugging Face or Google Cloud; kept nowhere.
        anonymous: Ask a bucket without this machine's credentials, as a public one allows.
        md5: The archive's MD5 in hex, as some sites give it instead of ``sha256``.
        unpack: False copies archives as they are, as shards for a loader that unpacks them.
        subfolders: Give each of several archives a folder of its own, called as it is.
        nested: Unpack archives in the archive too, each into a folder called as it is.

    Returns:
        The folder. A notebook shows it as a card.

    Raises:
        ArgumentError: An argument cannot be used.
        DatasetNotFoundError: There is no such source; the message lists near names.
        DatasetMismatchError: Its SHA-256 is another.
        DestinationTakenError: ``dest`` holds something that was not unpacked there.
        DiskFullError: There is too little room.
        ColabKitError: The archive is unsafe or corrupt, or the source failed for too long.

    Example:
        >>> data_dir = colabkit.dataset("MyDrive/cats.zip")  # doctest: +SKIP
    """
    if sha256 is not None and not re.fullmatch(_SHA256, str(sha256).lower()):
        message = f"sha256 is 64 hex digits, not {sha256!r}."
        raise ArgumentError(message, argument="sha256")
    if md5 is not None and (sha256 is not None or not re.fullmatch(_MD5, str(md5).lower())):
        message = f"md5 is 32 hex digits, and beside it sha256 is left out, not {md5!r}."
        raise ArgumentError(message, argument="md5")
    if not unpack and (subfolders or nested):
        message = "subfolders and nested are of archives that are unpacked, and unpack=False."
        raise ArgumentError(message, argument="unpack", hint="Leave one of them out.")
    if verify not in {"quick", "full"}:
        message = f'verify is "quick" or "full", not {verify!r}.'
        raise ArgumentError(message, argument="verify")
    _check_password(password)
    access = _access(headers, token, anonymous=anonymous)
    found = find_source(source, access=access, as_they_are=not unpack)
    request = DatasetRequest(
        found=_in_form(found, unpack=unpack, subfolders=subfolders, nested=nested),
        selection=_selection(members),
        checksum=f"md5:{md5.lower()}" if md5 else sha256.lower() if sha256 else None,
        refresh=refresh,
        read_all=verify == "full",
        pack=pack,
        evict=evict,
        password=password,
        limits=limits,
        encoding=_encoding(encoding),
        access=access,
        unpack=unpack,
        subfolders=subfolders,
        nested=nested,
    )
    with interrupts_as_such():
        slot = asked(lambda: _slot_of(request, dest))
        return Call(request, slot, progress=progress).run()


def _slot_of(request: DatasetRequest, dest: str | os.PathLike[str] | None) -> Slot:
    if dest is not None:
        _check_dest(dest, request.found)
    return slot_for(request.found.name, request.selection, dest, cache=cache_folder())


def _in_form(found: Found, *, unpack: bool, subfolders: bool, nested: bool) -> Found:
    """Returns a source under a name that tells how it comes out: each form is a dataset."""
    forms = {"packed": not unpack, "subfolders": subfolders, "nested": nested}
    marks = "".join(f"#{form}" for form, is_so in forms.items() if is_so)
    return dataclasses.replace(found, name=found.name + marks)


def _access(headers: object, token: object, *, anonymous: bool) -> Access:
    if token is not None and (not isinstance(token, str) or not token):
        message = "token is text, as the service shows it."
        raise ArgumentError(message, argument="token", hint="Is its variable set?")
    if token is not None and anonymous:
        message = "token and anonymous=True say the opposite."
        raise ArgumentError(message, argument="token", hint="Pass one of them.")
    if headers is None:
        return Access(token=token, anonymous=anonymous)
    if not isinstance(headers, Mapping) or not all(
        isinstance(word, str) for pair in headers.items() for word in pair
    ):
        message = "headers is a dict from names to text."
        hint = 'As {"Authorization": "Bearer ..."}.'
        raise ArgumentError(message, argument="headers", hint=hint)
    return Access(MappingProxyType(dict(headers)), token, anonymous)


def _check_password(password: object) -> None:
    if password is not None and not isinstance(password, str | bytes):
        message = f"password is text or bytes, not {type(password).__name__}."
        raise ArgumentError(message, argument="password")


def _encoding(encoding: str | None) -> str | None:
    if encoding is None:
        return None
    try:
        return codecs.lookup(encoding).name
    except (LookupError, TypeError) as error:
        message = f"encoding is the name of one, not {encoding!r}."
        hint = 'As "gbk", "big5", "cp932", "cp949", "cp437" or "utf-8".'
        raise ArgumentError(message, argument="encoding", hint=hint) from error


def _check_dest(dest: object, found: Found) -> None:
    if not isinstance(dest, str | os.PathLike):
        message = f"dest is a folder, not {dest!r}."
        raise ArgumentError(message, argument="dest", hint="Pass its path, or leave it out.")
    text = os.fspath(dest)
    if not text:
        message = "dest is empty."
        raise ArgumentError(message, argument="dest", hint="Pass a folder, or leave it out.")
    if mount_of(text) is not None:
        message = f"dest is {text}, on Google Drive: reading from there is what takes long."
        raise ArgumentError(message, argument="dest", hint="Leave it out, or pass a local folder.")
    if Path(text).expanduser().is_mount():
        message = f"dest is {text}, where a disk is mounted: a dataset gets its name by a rename."
        hint = f"Pass a folder on it, as {str(Path(text) / 'data')!r}."
        raise ArgumentError(message, argument="dest", hint=hint)
    if found.kind is SourceKind.FOLDER:
        folder, root = Path(text).expanduser().resolve(), Path(found.paths[0]).resolve()
        if folder.is_relative_to(root) or root.is_relative_to(folder):
            message = f"dest {folder} and the folder {root} lie in one another."
            raise ArgumentError(message, argument="dest", hint="Pass another dest.")


def _selection(members: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if members is None:
        return None
    if isinstance(members, str):
        chosen: tuple[str, ...] = (members,)
    else:
        chosen = tuple(members) if isinstance(members, Iterable) else ()
    if not chosen or not all(isinstance(name, str) and name for name in chosen):
        message = f"members is a name, a pattern or a list of them, not {members!r}."
        raise ArgumentError(message, argument="members", hint="Leave it out to take all.")
    return chosen
