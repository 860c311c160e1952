"""What to say of a path where nothing is, or nothing that can be reached now."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from colabkit.errors import DatasetNotFoundError
from colabkit.runtime import Platform
from colabkit.storage import MountState, locate, mount_of, names_in, near_names


def missing(text: str, path: Path, reason: OSError, platform: Platform) -> Exception:
    """Returns the error for a source that is not there: what is, and what is like it."""
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
    if wanted == "Users" or re.match(r"[A-Za-z]:[\\/]", text):
        hint = "It is a path of another computer, which this one cannot see: upload it to Drive."
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
