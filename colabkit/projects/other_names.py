"""What people type for the arguments of ``run_script`` and ``run``, and what to write."""

from __future__ import annotations

from colabkit.other_names import OtherNames, by_name

OF_SCRIPT = OtherNames(
    by_name(
        {
            "keep": "dest keep_folder kept output output_dir save_dir to",
            "project": "cwd directory folder project_dir root workdir work_dir",
            "save_every_s": "every interval period_s save_every",
        }
    ),
    by_name(
        {
            'Pass them one by one: run_script("train.py", "--epochs", 3).': (
                "args arguments argv cmd command epochs kwargs params script_args"
            ),
            "Set it before: os.environ[...] = ...": "env environ environment",
            "Leave it out: it runs until it ends; stop the cell to end it.": "timeout timeout_s",
            "Leave it out: it runs with this notebook's Python, and what it prints is shown.": (
                "capture_output check python quiet shell stdout verbose"
            ),
            "Write the script first: its path on Drive, or the words of a command.": (
                "file filename path script script_path"
            ),
        }
    ),
)
