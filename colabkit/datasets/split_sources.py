"""Sources that are parts of archives: the other parts beside them, and what is missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

from colabkit.datasets.found import Found, SourceKind, is_url
from colabkit.datasets.reading.access import Access
from colabkit.datasets.reading.split_names import (
    SplitArchive,
    folder_of,
    gathered,
    like_it,
    name_of,
    number_of,
    part_names,
)
from colabkit.datasets.reading.web import is_web, urls_like, urls_that_exist
from colabkit.errors import DatasetNotFoundError, StorageError
from colabkit.storage import names_in

URL_HINT = "Check the address and the pattern."
_NAMES_SHOWN = 5
_PROBES = 8


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
        elif "://" in path and _may_be_whole(path):
            names[folder] = [name_of(path)]
        elif is_web(path):
            names[folder] = _names_on_web(path, number, access)
        elif "://" in path:
            names[folder] = [name_of(url) for url in urls_like(f"{folder}*", access)]
        elif len(paths) > 1 or number or _begins_with_parts(path):
            names[folder] = names_in(Path(folder))
    return names


def _may_be_whole(url: str) -> bool:
    """Whether a URL is a zip that only its own end tells to be the last of several parts."""
    return number_of(url) == 0 and name_of(url).lower().endswith(".zip")


def _begins_with_parts(path: str) -> bool:
    """Whether a zip is the last part of several, or a first part has others behind it."""
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
