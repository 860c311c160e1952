"""What people type for the arguments of ``setup``, ``mount`` and ``release``, and what to write."""

from __future__ import annotations

from colabkit.other_names import OtherNames, by_name

OF_SETUP = OtherNames(
    by_name(
        {
            "allow_changes": "upgrade",
            "drive": "gdrive google_drive mount mount_drive use_drive",
            "mountpoint": "drive_path mount_path mount_point",
            "packages": "deps dependencies install pip pip_install reqs requirements",
            "seed": "manual_seed random_seed random_state",
            "session_hours": "max_hours",
            "workdir": "chdir cwd directory folder path project project_dir root work_dir",
        }
    ),
    by_name(
        {
            'Write gpu=True, or "require"; which GPU it is the menu decides: Runtime → Change'
            " runtime type.": "accelerator gpu_name gpu_type gpus n_gpu num_gpus",
            'Write gpu=True, False, or "require".': "cuda device use_cuda use_gpu",
            "Nothing here trains on a TPU yet: gpu=True takes a GPU, else the CPU.": "tpu use_tpu",
            "Leave it out: Drive is mounted anew when it is lost.": "force_remount remount",
            "Pass it to fit or Run: ckpt_dir is their run folder.": "ckpt_dir output_dir run_dir",
            "Leave it out: setup says in one card what it found.": "quiet verbose",
            "Call colabkit.dataset(source) for data.": "data dataset",
        }
    ),
)
OF_RELEASE = OtherNames(by_name({"timeout_s": "max_wait timeout timeout_ms wait"}))
