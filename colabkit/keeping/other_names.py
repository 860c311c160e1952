"""What people type for the arguments of ``keep``, and what to write."""

from __future__ import annotations

from colabkit.other_names import OtherNames, by_name

OF_KEEP = OtherNames(
    by_name(
        {
            "copies": "keep keep_last max_to_keep n_versions save_total_limit versions",
            "every": "every_s freq frequency interval period save_every save_steps sync_every",
            "skip": "exclude exclude_patterns ignore ignore_patterns",
            "to": "ckpt_dir dest destination drive_dir dst output output_dir remote target",
            "folder": "directory local local_dir path source src",
        }
    ),
    by_name(
        {
            "Leave it out: all of the folder is kept; skip= names what is not.": (
                "allow_patterns files glob include members pattern patterns"
            ),
            "Leave it out: what the trainer removes is gone from the next version.": (
                "delete mirror"
            ),
            "Write progress=False for silence; leave it out otherwise.": "quiet silent verbose",
            "Name it by its place, to.": "name run_name",
            "Leave it out: what was kept is back once the call returns.": "restore resume",
        }
    ),
)
