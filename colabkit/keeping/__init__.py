"""keep(): any trainer's folder, whole on a volume, and back on the next machine."""

from colabkit.keeping.calls import keep, keep_outputs, kept_folders, remount_for_kept, upload_all
from colabkit.keeping.kept import Kept
from colabkit.keeping.status import KeepStatus, UploadedVersion

__all__ = [
    "KeepStatus",
    "Kept",
    "UploadedVersion",
    "keep",
    "keep_outputs",
    "kept_folders",
    "remount_for_kept",
    "upload_all",
]
