"""mount(): Drive where it can be had, and one line where it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from colabkit.errors import ArgumentError, DriveMountError
from colabkit.notebook import reader, said_if_it_lasts
from colabkit.runtime import Platform, detect_platform, how_to_answer
from colabkit.session.records import DriveStatus
from colabkit.storage import (
    DEFAULT_MOUNTPOINT,
    ColabMounter,
    DriveMount,
    Mounter,
    MountState,
    active_mount,
    is_readonly,
    is_usual,
    mount_in_use,
    mounter_for,
    use_mount,
)

_CONSENT_S = 120.0
_QUIET_S = 4.0
_LOCAL_ADVICE = {
    Platform.COLAB: (
        "Until Drive is mounted, what you save goes away with this machine; training works."
    ),
    Platform.COLAB_ENTERPRISE: (
        "Pass a bucket, ckpt_dir='gs://bucket/run': this machine's disk goes away with it."
    ),
    Platform.KAGGLE: ("Pass ckpt_dir='/kaggle/working/run': it is kept when a version is saved."),
    Platform.OTHER: "Pass any folder as ckpt_dir that outlives this machine.",
}


def mount(
    mountpoint: str | Path | None = None,
    *,
    backend: str | Mounter | None = None,
    timeout_s: float = _CONSENT_S,
    readonly: bool | None = None,
    remount_after_hours: float | None = None,
    **options: Any,
) -> DriveStatus:
    """Mounts Drive; where it is mounted and alive, nothing is done.

    Args:
        mountpoint: Where Drive is to be; "/content/drive" by default.
        backend: The program that mounts it: "colab", google.colab's own, by default;
            "rclone", "ocamlfuse", or "folder" for one that you have mounted yourself.
        timeout_s: How long to wait for you to allow access, in seconds.
        readonly: True mounts it to be read only, for a session that only reads datasets from it,
            where it is not mounted yet; False mounts it anew where it is so.
        remount_after_hours: Mounts it anew between two steps when the mount is that old and
            nothing waits to be copied; None waits until it is lost.
        **options: What the backend takes, such as ``remote="gdrive:"`` for rclone.

    Returns:
        How Drive stands, and where it is; a notebook shows it as a card.

    Raises:
        DriveMountError: It could not be mounted; ``cause`` says why.
        ArgumentError: An argument cannot be used.

    Example:
        >>> colabkit.mount()  # doctest: +SKIP
        Google Drive
          Drive  mounted, /content/drive/MyDrive
    """
    if remount_after_hours is not None and not remount_after_hours > 0:
        hint = "Pass hours, as 11.5, or None."
        raise ArgumentError.of("remount_after_hours", remount_after_hours, hint)
    drive = chosen_mount(mountpoint, backend=backend, **options)
    _choose_access(drive, readonly, timeout_s=timeout_s)
    _mounted(drive, timeout_s=timeout_s)
    drive.renew_after_s = None if remount_after_hours is None else remount_after_hours * 3600
    return status_of(drive)


def _choose_access(drive: DriveMount, readonly: bool | None, *, timeout_s: float) -> None:
    """Has Drive mounted as the user wants to use it, and taken down where it cannot stay so."""
    if readonly is None:
        return
    if not isinstance(drive.mounter, ColabMounter):
        message = f"backend {drive.mounter.name!r} takes no readonly."
        hint = "Pass what its program takes: options=['--read-only'] for rclone."
        raise ArgumentError(message, argument="readonly", hint=hint)
    is_there = drive.probe() is MountState.MOUNTED
    if is_there and readonly:
        return  # what is saved there goes on being saved
    was_readonly, drive.mounter.readonly = drive.mounter.readonly, readonly
    if is_there and (was_readonly or is_readonly(drive.mountpoint)):
        drive.unmount(timeout_s=timeout_s)


def _mounted(drive: DriveMount, *, timeout_s: float = _CONSENT_S) -> DriveMount:
    words = (
        f"Waiting up to {timeout_s:.0f} s for access to Drive: {how_to_answer(reader())},"
        " or stop the cell."
    )
    with said_if_it_lasts(words, after_s=_QUIET_S):
        drive.mount(timeout_s=timeout_s)
    use_mount(drive)
    return drive


def chosen_mount(
    mountpoint: str | Path | None = None,
    *,
    backend: str | Mounter | None = None,
    **options: Any,
) -> DriveMount:
    """Returns the mount in use when it is the one asked for, else a new one, not mounted yet."""
    is_google = backend in {None, "colab"} and not options
    there = mount_in_use() if is_google else active_mount()
    place = Path(mountpoint or DEFAULT_MOUNTPOINT).expanduser().absolute()
    if there is not None and is_google:
        is_named = mountpoint is not None and place != there.mountpoint
        if (backend is None and not is_named) or _serves(there, place):
            return there
    backend = backend or "colab"
    mounter = mounter_for(backend, **options)
    named = backend if isinstance(backend, str) else f"{mounter.name} {id(mounter)}"
    asked = " ".join([named, *(f"{name}={options[name]!r}" for name in sorted(options))])
    # A cell that is run again asks again: the mount in use knows what it has yet to upload.
    if there is not None and (place, asked) == (there.mountpoint, there.asked):
        return there
    return DriveMount(place, mounter, asked=asked)


def _serves(there: DriveMount, place: Path) -> bool:
    """Whether Google's own mount is there already, and names of Drive at a place lead to it."""
    is_googles = isinstance(there.mounter, ColabMounter)
    return is_googles and is_usual(place) and there.mounter.is_listed(there.mountpoint)


def status_of(drive: DriveMount) -> DriveStatus:
    """Returns how a mount stands, with a look at it."""
    state = drive.probe()
    if state is not MountState.MOUNTED:
        reason = f"{state.value} at {drive.mountpoint}"
        return DriveStatus(state, backend=drive.mounter.name, reason=reason)
    readonly = is_readonly(drive.mountpoint)
    return DriveStatus(state, drive.root, drive.mounter.name, is_readonly=readonly)


def status_without(reason: str, platform: Platform | None = None) -> DriveStatus:
    """Returns the status of a machine without Drive, with what works instead."""
    platform = detect_platform() if platform is None else platform
    return DriveStatus(MountState.ABSENT, reason=reason, advice=_LOCAL_ADVICE[platform])


def mounted_or_why(
    mountpoint: str | Path, *, remount_after_hours: float | None = None
) -> DriveStatus:
    """Mounts Drive for setup(), which goes on without where that cannot be."""
    platform, there = detect_platform(), mount_in_use()
    if there is None and platform is not Platform.COLAB:
        return status_without(f"none on {platform.value}", platform)
    # What mount() was told stands: the default asks for Drive, not for another place.
    elsewhere = None if there is not None and str(mountpoint) == DEFAULT_MOUNTPOINT else mountpoint
    try:
        drive = _mounted(chosen_mount(elsewhere))
        if remount_after_hours is not None:
            drive.renew_after_s = remount_after_hours * 3600
        return status_of(drive)
    except DriveMountError as error:
        status = status_without(error.message, platform)
        return DriveStatus(status.state, reason=status.reason, advice=error.hint)
