"""What a path means: a place on Drive by any of its names, or a place on this machine."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from colabkit.errors import ArgumentError, DriveLostError
from colabkit.runtime import Platform, detect_platform
from colabkit.storage.drive_mount import DriveMount, MountState
from colabkit.storage.drive_volume import DriveVolume
from colabkit.storage.fsspec_volume import FsspecVolume
from colabkit.storage.local import LocalVolume
from colabkit.storage.mounted_volume import MountedVolume
from colabkit.storage.mounters import ColabMounter
from colabkit.storage.mounts import is_slow
from colabkit.storage.rclone_volume import RcloneVolume
from colabkit.storage.urls import RCLONE, protocol_of, url_of

AnyVolume = LocalVolume | FsspecVolume | RcloneVolume

DEFAULT_MOUNTPOINT = "/content/drive"
_ROOT_NAMES = ("MyDrive", "My Drive")
_DRIVE_NAMES = ("drive", "content/drive", "/content/drive")

_active: list[DriveMount] = []


def active_mount() -> DriveMount | None:
    """Returns the mount that names of Drive lead to, None without one."""
    return _active[-1] if _active else None


def use_mount(mount: DriveMount | None) -> None:
    """Makes names of Drive lead to a mount, or to none."""
    _active[:] = [mount] if mount is not None else []


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
    mount = active_mount()
    if mount is not None:
        inside = drive_part(path, mount.mountpoint)
        if inside is not None:
            return mount.root / inside
    elif (detect_platform() if platform is None else platform) is Platform.COLAB:
        inside = drive_part(path)
        if inside is not None:
            return Path(DEFAULT_MOUNTPOINT) / "MyDrive" / inside
    return Path(path).expanduser()


def mount_of(path: str | Path, *, platform: Platform | None = None) -> DriveMount | None:
    """Returns the mount of Drive that a path lies on, None when it lies on none.

    Shared drives lie on it too, beside My Drive. On Colab a mount that somebody else made is
    taken over.
    """
    where = locate(path, platform=platform).absolute()
    mount = active_mount()
    if mount is not None:
        return mount if where.is_relative_to(mount.mountpoint) else None
    platform = detect_platform() if platform is None else platform
    if platform is not Platform.COLAB or not where.is_relative_to(DEFAULT_MOUNTPOINT):
        return None
    adopted = DriveMount(DEFAULT_MOUNTPOINT, ColabMounter())
    if adopted.look() is MountState.MOUNTED:
        use_mount(adopted)
    return adopted


def volume_at(path: str | Path) -> AnyVolume:
    """Returns a folder or a URL as a volume, the one that fits where it lies.

    Raises:
        DriveLostError: It is on Drive, and Drive is not mounted.
        StorageError: It is a file.
        MissingPackageError: The package or the program for the URL is not installed.
    """
    url = url_of(path)
    if url is not None:
        return RcloneVolume(url) if protocol_of(url) == RCLONE else FsspecVolume(url)
    where = locate(path)
    mount = mount_of(path)
    if mount is None:
        return MountedVolume(where) if is_slow(where) else LocalVolume(where)
    if mount.look() is not MountState.MOUNTED:
        message = f"{path} is on Drive, which is not mounted at {mount.mountpoint}."
        hint = "Run colabkit.setup() or colabkit.mount() first, then this cell again."
        raise DriveLostError(message, path=where, operation="open", hint=hint)
    return DriveVolume(where, mount)


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
