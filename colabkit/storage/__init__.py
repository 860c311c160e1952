"""Volumes: where checkpoints lie, written so that a name means whole content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from colabkit.doors import opened_on_use

if TYPE_CHECKING:
    from colabkit.storage.asking import asked, interrupts_as_such
    from colabkit.storage.drive_mount import (
        DEFAULT_MOUNTPOINT,
        DriveMount,
        MountState,
        Observation,
        RemountOutcome,
        RemountResult,
        state_after,
        wait_before_try_s,
    )
    from colabkit.storage.drive_volume import DriveVolume
    from colabkit.storage.files import Files, write_whole
    from colabkit.storage.fsspec_volume import FsspecVolume
    from colabkit.storage.giving_back import give_back
    from colabkit.storage.hashing import hash_of
    from colabkit.storage.inputs import attached_runs, locate_input, names_in, near_names
    from colabkit.storage.local import LocalVolume
    from colabkit.storage.mounted_volume import MountedVolume
    from colabkit.storage.mounter import Mounter, MountRequest
    from colabkit.storage.mounters import ColabMounter, FolderMounter, mounter_for
    from colabkit.storage.mounts import filesystem_type, is_mountpoint, is_readonly, is_slow
    from colabkit.storage.ocamlfuse_mount import OcamlfuseMounter
    from colabkit.storage.outages import FULL, LOST, PASSING, may_pass
    from colabkit.storage.places import (
        active_mount,
        drive_part,
        is_usual,
        locate,
        mount_in_use,
        mount_of,
        use_mount,
        volume_at,
        warning_about,
    )
    from colabkit.storage.programs import Ended, cache_folder, make_in_cache, run_program
    from colabkit.storage.rclone_mount import RcloneMounter
    from colabkit.storage.rclone_volume import RcloneVolume
    from colabkit.storage.urls import joined, url_of
    from colabkit.storage.volume import Bytes, Uploading, Volume

__all__ = [
    "DEFAULT_MOUNTPOINT",
    "FULL",
    "LOST",
    "PASSING",
    "Bytes",
    "ColabMounter",
    "DriveMount",
    "DriveVolume",
    "Ended",
    "Files",
    "FolderMounter",
    "FsspecVolume",
    "LocalVolume",
    "MountRequest",
    "MountState",
    "MountedVolume",
    "Mounter",
    "Observation",
    "OcamlfuseMounter",
    "RcloneMounter",
    "RcloneVolume",
    "RemountOutcome",
    "RemountResult",
    "Uploading",
    "Volume",
    "active_mount",
    "asked",
    "attached_runs",
    "cache_folder",
    "drive_part",
    "filesystem_type",
    "give_back",
    "hash_of",
    "interrupts_as_such",
    "is_mountpoint",
    "is_readonly",
    "is_slow",
    "is_usual",
    "joined",
    "locate",
    "locate_input",
    "make_in_cache",
    "may_pass",
    "mount_in_use",
    "mount_of",
    "mounter_for",
    "names_in",
    "near_names",
    "run_program",
    "state_after",
    "url_of",
    "use_mount",
    "volume_at",
    "wait_before_try_s",
    "warning_about",
    "write_whole",
]

__getattr__, __dir__ = opened_on_use(
    __name__,
    {
        "asking": "asked interrupts_as_such",
        "drive_mount": (
            "DEFAULT_MOUNTPOINT DriveMount RemountOutcome RemountResult "
            "MountState Observation state_after wait_before_try_s"
        ),
        "drive_volume": "DriveVolume",
        "files": "Files write_whole",
        "fsspec_volume": "FsspecVolume",
        "giving_back": "give_back",
        "hashing": "hash_of",
        "inputs": "attached_runs locate_input names_in near_names",
        "local": "LocalVolume",
        "mounted_volume": "MountedVolume",
        "mounter": "MountRequest Mounter",
        "mounters": "ColabMounter FolderMounter mounter_for",
        "mounts": "filesystem_type is_mountpoint is_readonly is_slow",
        "ocamlfuse_mount": "OcamlfuseMounter",
        "outages": "FULL LOST PASSING may_pass",
        "places": (
            "active_mount drive_part is_usual locate "
            "mount_in_use mount_of use_mount volume_at warning_about"
        ),
        "programs": "Ended cache_folder make_in_cache run_program",
        "rclone_mount": "RcloneMounter",
        "rclone_volume": "RcloneVolume",
        "urls": "joined url_of",
        "volume": "Bytes Uploading Volume",
    },
)
