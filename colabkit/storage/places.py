"""What a path means: a place on Drive by any of its names, or a place on this machine."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from colabkit.errors import ArgumentError, DriveLostError
from colabkit.runtime import Platform, detect_platform
from colabkit.storage.drive_mount import DEFAULT_MOUNTPOINT, DriveMount, MountState
from colabkit.storage.mounts import drive_mountpoints, is_readonly, is_slow, led_to
from colabkit.storage.urls import RCLONE, protocol_of, url_of

if TYPE_CHECKING:
    from colabkit.storage.volume import Volume

# Where notebooks mount Drive, by habit or by an older tutorial.
_USUAL = (DEFAULT_MOUNTPOINT, "/content/gdrive")
_ROOT_NAMES = ("MyDrive", "My Drive")
_SHARED_NAMES = ("Shareddrives", "Shared drives")
_DRIVE_NAMES = tuple(name for place in _USUAL for name in (place, place[1:], Path(place).name))

_active: list[DriveMount] = []


def active_mount() -> DriveMount | None:
    """Returns the mount that names of Drive lead to, None without one."""
    return _active[-1] if _active else None


def use_mount(mount: DriveMount | None) -> None:
    """Makes names of Drive lead to a mount, or to none."""
    _active[:] = [mount] if mount is not None else []


def mount_in_use(platform: Platform | None = None) -> DriveMount | None:
    """Returns the mount of Drive; on Colab one that somebody else made is taken over.

    Google's program is one on a machine: where it has been mounted elsewhere since, the mount
    that was in use is dead, and names of Drive lead to the new one.

    Args:
        platform: The kind of machine; found out by default.
    """
    mount = active_mount()
    if (detect_platform() if platform is None else platform) is not Platform.COLAB:
        return mount
    # Off Colab most names lead to no mount, and need none of the programs that make one.
    from colabkit.storage.mounters import ColabMounter

    if mount is not None and not isinstance(mount.mounter, ColabMounter):
        return mount
    there = drive_mountpoints()
    if not there or (mount is not None and mount.mountpoint == there[0]):
        return mount
    found = [DriveMount(each, ColabMounter(readonly=is_readonly(each))) for each in there]
    alive = next((each for each in found if each.probe() is MountState.MOUNTED), None)
    if mount is None:
        use_mount(alive or found[0])
    elif alive is not None and alive.mountpoint != mount.mountpoint:
        alive.renew_after_s = mount.renew_after_s
        use_mount(alive)
    return active_mount()


def is_usual(mountpoint: str | Path) -> bool:
    """Whether Drive's names at a mountpoint lead to Drive wherever it is mounted.

    Example:
        >>> is_usual("/content/gdrive")
        True
    """
    return str(mountpoint) in _USUAL


def drive_part(path: str | Path, mountpoint: str | Path = DEFAULT_MOUNTPOINT) -> str | None:
    """Returns the part of a path inside My Drive, None when it is not on Drive.

    Example:
        >>> drive_part("/content/drive/My Drive/runs/cats")
        'runs/cats'
        >>> drive_part("MyDrive/cats.zip")
        'cats.zip'
        >>> drive_part("runs/cats") is None
        True
    """
    text = str(PurePosixPath(path))
    for prefix in (str(mountpoint), *_DRIVE_NAMES):
        inside = text.removeprefix(f"{prefix}/")
        if inside != text:
            break
    else:
        inside = text
    head, _, rest = inside.partition("/")
    return rest if head in _ROOT_NAMES else None


def locate(path: str | Path, *, platform: Platform | None = None) -> Path:
    """Returns where a path of the user's lies on this machine.

    On Colab, and wherever ``mount`` was called, every name of a place on Drive leads to its
    mount; elsewhere a path means what it says.

    Example:
        >>> locate("MyDrive/cats.zip", platform=Platform.COLAB)
        PosixPath('/content/drive/MyDrive/cats.zip')
        >>> locate("MyDrive/cats.zip", platform=Platform.OTHER)
        PosixPath('MyDrive/cats.zip')

    Raises:
        ArgumentError: It is a URL of another place than this machine.
    """
    if url_of(path) is not None:
        message = f"{path} is no place on this machine."
        hint = "Pass a folder; only ckpt_dir may be a URL."
        raise ArgumentError(message, argument="path", hint=hint)
    if isinstance(path, str) and path.startswith("file://"):
        path = unquote(urlsplit(path).path)
    platform = detect_platform() if platform is None else platform
    mount = mount_in_use(platform)
    if mount is None and platform is not Platform.COLAB:
        return Path(path).expanduser()
    return _on_drive(path, mount) or Path(path).expanduser()


def _on_drive(path: str | Path, mount: DriveMount | None) -> Path | None:
    """Returns where a path leads on Drive, None when it leads elsewhere.

    By its name; or by the link or the folder that it begins with, wherever that hides Drive.
    """
    mountpoint = Path(DEFAULT_MOUNTPOINT) if mount is None else mount.mountpoint
    root = mountpoint / "MyDrive" if mount is None else mount.root
    inside = drive_part(path, mountpoint)
    if inside is not None:
        return root / inside
    if (shared := _on_shared_drive(path, mountpoint)) is not None:
        return shared
    places = [mountpoint, *map(Path, _USUAL), *drive_mountpoints()]
    where = led_to(Path(path).expanduser(), unasked=places)
    place = next((each for each in places if where.is_relative_to(each)), None)
    if place is None:
        return None
    inside = drive_part(where, place)
    return mountpoint / where.relative_to(place) if inside is None else root / inside


def _on_shared_drive(path: str | Path, mountpoint: Path) -> Path | None:
    """Returns where a path on a shared drive leads, by whichever of its names; None for another."""
    text = str(PurePosixPath(path))
    for prefix in ("", *(f"{name}/" for name in (str(mountpoint), *_DRIVE_NAMES))):
        head, _, rest = text.removeprefix(prefix).partition("/")
        if head in _SHARED_NAMES and rest and text.startswith(prefix):
            there = next((n for n in _SHARED_NAMES if (mountpoint / n).is_dir()), _SHARED_NAMES[0])
            return mountpoint / there / rest
    return None


def mount_of(path: str | Path, *, platform: Platform | None = None) -> DriveMount | None:
    """Returns the mount of Drive that a path lies on, None when it lies on none.

    Shared drives lie on it too, beside My Drive. On Colab a mount that somebody else made is
    taken over.
    """
    platform = detect_platform() if platform is None else platform
    where, mount = locate(path, platform=platform).absolute(), mount_in_use(platform)
    if mount is not None:
        return mount if where.is_relative_to(mount.mountpoint) else None
    if platform is not Platform.COLAB or not where.is_relative_to(DEFAULT_MOUNTPOINT):
        return None
    from colabkit.storage.mounters import ColabMounter

    return DriveMount(DEFAULT_MOUNTPOINT, ColabMounter())


def volume_at(path: str | Path) -> Volume:
    """Returns a folder or a URL as a volume, the one that fits where it lies.

    Raises:
        DriveLostError: It is on Drive, and Drive is not mounted.
        StorageError: It is a file.
        MissingPackageError: The package or the program for the URL is not installed.
    """
    url = url_of(path)
    if url is not None:
        return _volume_of(url)
    where = locate(path)
    mount = mount_of(path)
    if mount is None:
        return _volume_in(where)
    if mount.probe() is not MountState.MOUNTED:
        message = f"{path} is on Drive, which is not mounted at {mount.mountpoint}."
        hint = "Run colabkit.setup() or colabkit.mount() first, then this cell again."
        raise DriveLostError(message, path=where, operation="open", hint=hint)
    from colabkit.storage.drive_volume import DriveVolume

    return DriveVolume(where, mount)


def _volume_of(url: str) -> Volume:
    """Returns a URL as a volume; fsspec opens all that have none of their own."""
    if protocol_of(url) == RCLONE:
        from colabkit.storage.rclone_volume import RcloneVolume

        return RcloneVolume(url)
    from colabkit.storage.fsspec_volume import FsspecVolume

    return FsspecVolume(url)


def _volume_in(folder: Path) -> Volume:
    if is_slow(folder):
        from colabkit.storage.mounted_volume import MountedVolume

        return MountedVolume(folder)
    from colabkit.storage.local import LocalVolume

    return LocalVolume(folder)


def warning_about(path: str | Path, *, platform: Platform | None = None) -> str:
    """Returns what to know of a folder that goes away with the machine, "" when it stays.

    Example:
        >>> warning_about("runs/cats", platform=Platform.OTHER)
        ''
    """
    platform = detect_platform() if platform is None else platform
    if not platform.is_hosted or url_of(path) is not None:
        return ""
    where = locate(path, platform=platform).absolute()
    if mount_of(path, platform=platform) is not None or is_slow(where):
        return ""
    if platform is Platform.KAGGLE:
        if where.is_relative_to("/kaggle/working"):
            return ""
        better = "'/kaggle/working/run', which a saved version keeps"
    elif platform is Platform.COLAB_ENTERPRISE:
        better = "a bucket, 'gs://bucket/run'"
    else:
        better = "a folder on Drive, 'MyDrive/runs/cats'"
    return f"{path} is on this machine's own disk, which goes away with it; take {better}."
