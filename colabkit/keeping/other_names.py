"""What people type for the arguments of ``keep``, and what to write."""

from __future__ import annotations

from colabkit.other_names import OtherNames, by_name

OF_KEEP = OtherNames(
    by_name(
        {
            "copies": (
                "keep keep_last keep_versions max_to_keep max_versions n_versions"
                " save_last_n_epochs save_total_limit versions"
            ),
            "every": (
                "every_s freq frequency interval period period_s save_every save_interval"
                " save_steps sync_every"
            ),
            "skip": "exclude exclude_patterns ignore ignore_patterns skip_patterns",
            "to": (
                "backup_dir ckpt_dir dest destination drive_dir drive_folder drive_path dst output"
                " output_dir remote remote_dir target"
            ),
            "folder": (
                "checkpoint_dir dir directory from_ local local_dir log_dir model_dir"
                " path project_dir save_dir source src"
            ),
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
            'Write every=: "auto", or a time such as "5min".': (
                "every_minutes every_n_epochs every_n_minutes save_every_n_epochs"
            ),
            "Leave it out: it copies beside the training; kept.flush() waits.": (
                "async_ background block sync upload wait watch"
            ),
            "Leave it out: what did not change is not copied again.": "compress",
            "Name it by its place, to.": "name run_name",
            "Leave it out: all of the folder is kept, the best of its checkpoints too.": (
                "filename mode monitor save_best"
            ),
            "Leave it out: what fails in passing is tried again, and said.": "on_error timeout",
            "Leave it out: what was kept is back once the call returns.": (
                "pull restore restore_from resume"
            ),
        }
    ),
)
