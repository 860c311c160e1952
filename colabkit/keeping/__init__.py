"""keep(): any trainer's folder, whole on a volume, and back on the next machine."""

from colabkit.keeping.calls import keep, keep_outputs, kept_folders, mend_kept, upload_all
from colabkit.keeping.kept import KeepStatus, Kept

__all__ = [
    "KeepStatus",
    "Kept",
    "keep",
    "keep_outputs",
    "kept_folders",
    "mend_kept",
    "upload_all",
]
