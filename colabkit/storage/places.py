"""What a path means: a place on Drive by any of its names, or a place on this machine."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from colabkit.runtime import Platform, detect_platform

DEFAULT_MOUNTPOINT = "/content/drive"
_ROOT_NAMES = ("MyDrive", "My Drive")
_DRIVE_NAMES = ("drive", "content/drive", "/content/drive")


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


def locate(
    path: str | Path,
    *,
    mountpoint: str | Path = DEFAULT_MOUNTPOINT,
    platform: Platform | None = None,
) -> Path:
    """Returns where a path of the user's lies on this machine.

    On Colab every name of a place on Drive leads to its mount; elsewhere a path means what
    it says.

    Example:
        >>> locate("MyDrive/cats.zip", platform=Platform.COLAB)
        PosixPath('/content/drive/MyDrive/cats.zip')
        >>> locate("MyDrive/cats.zip", platform=Platform.OTHER)
        PosixPath('MyDrive/cats.zip')
    """
    platform = detect_platform() if platform is None else platform
    inside = drive_part(path, mountpoint)
    if inside is None or platform is not Platform.COLAB:
        return Path(path).expanduser()
    return Path(mountpoint) / "MyDrive" / inside
