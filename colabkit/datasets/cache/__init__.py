"""Cache: where datasets lie, what is whole of them, and how they get and lose their names."""

from colabkit.datasets.cache.actions import (
    CacheAction,
    FolderState,
    Wanted,
    cache_action,
    replace_reason,
)
from colabkit.datasets.cache.checking import (
    boot_id,
    damaged_members,
    folder_times,
    is_copy_of,
    measure,
    sizes_state,
)
from colabkit.datasets.cache.durability import Durability, durability_here, sync_folder
from colabkit.datasets.cache.eviction import Evicted, evict, mark_used, sweep
from colabkit.datasets.cache.manifest import Header, Manifest, Member
from colabkit.datasets.cache.publishing import (
    Published,
    Swap,
    empty_trash,
    finish,
    look,
    publish,
    taken,
    write_manifest,
)
from colabkit.datasets.cache.room import bytes_on_disk, check_room, room_at
from colabkit.datasets.cache.slots import SIDE_NAME, Slot, cache_folder, slot_for
from colabkit.datasets.cache.staging import Staging, move_to_trash
from colabkit.datasets.cache.use import hold
from colabkit.datasets.cache.waiting import attended, locked

__all__ = [
    "SIDE_NAME",
    "CacheAction",
    "Durability",
    "Evicted",
    "FolderState",
    "Header",
    "Manifest",
    "Member",
    "Published",
    "Slot",
    "Staging",
    "Swap",
    "Wanted",
    "attended",
    "boot_id",
    "bytes_on_disk",
    "cache_action",
    "cache_folder",
    "check_room",
    "damaged_members",
    "durability_here",
    "empty_trash",
    "evict",
    "finish",
    "folder_times",
    "hold",
    "is_copy_of",
    "locked",
    "look",
    "mark_used",
    "measure",
    "move_to_trash",
    "publish",
    "replace_reason",
    "room_at",
    "sizes_state",
    "slot_for",
    "sweep",
    "sync_folder",
    "taken",
    "write_manifest",
]
