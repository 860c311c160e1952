"""What people type for the arguments of ``setup``, ``mount`` and ``release``, and what to write."""

from __future__ import annotations

from colabkit.other_names import OtherNames, by_name

OF_SETUP = OtherNames(
    by_name(
        {
            "allow_changes": "upgrade",
            "drive": "gdrive google_drive mount mount_drive use_drive",
            "mountpoint": "drive_path mount_drive_at mount_path mount_point",
            "packages": (
                "deps dependencies install install_packages pip pip_install"
                " install_requirements packages_file pip_packages reqs requirements"
            ),
            "seed": "manual_seed random_seed random_state seed_everything",
            "session_hours": "hours max_hours",
            "workdir": "chdir cwd directory folder path project project_dir root work_dir",
        }
    ),
    by_name(
        {
            'Write gpu=True, or "require"; which GPU it is the menu decides: Runtime → Change'
            " runtime type.": (
                "accelerator gpu_name gpu_type gpus hardware n_gpu num_gpus runtime runtime_type"
            ),
            'Write gpu=True, False, or "require".': "cuda device use_cuda use_gpu",
            "Leave it out: the card names a TPU. JAX uses it by itself; PyTorch trains on the CPU"
            " beside it.": "tpu use_tpu",
            'Write gpu="require".': "gpu_required need_gpu require_gpu",
            "Leave it out: the menu decides, Runtime → Change runtime type.": "high_ram ram",
            'Put it into os.environ["HF_TOKEN"], say from google.colab.userdata; or pass it to'
            " dataset(..., token=...).": "hf_token token",
            "Call torch.use_deterministic_algorithms(True) for it; seed= seeds.": (
                "cudnn_deterministic deterministic"
            ),
            "Pass it to fit: precision=.": "mixed_precision precision",
            "Leave it out: a mount is waited for as long as Colab asks.": "timeout timeout_ms",
            "Clone it with !git clone, or run one on Drive: colabkit.run_script(path).": (
                "clone git repo"
            ),
            "Leave it out: Drive is mounted anew when it is lost.": "force_remount remount",
            "Pass it to fit or Run: ckpt_dir is their run folder.": "ckpt_dir output_dir run_dir",
            "Leave it out: setup says in one card what it found.": "quiet verbose",
            "Call colabkit.dataset(source) for data.": "data data_dir dataset",
            "Leave it out: the frameworks that this machine brings are left as they are.": (
                "backend cuda_version keras tensorflow torch torch_version"
            ),
            "packages= takes what pip installs; for others write !apt-get install -y in a cell.": (
                "apt conda install_from system_packages"
            ),
            "Put it into os.environ, say from google.colab.userdata.": (
                "env environ secrets wandb_key"
            ),
            "Leave it out: without a GPU, training goes on the CPU; fit(..., device='cpu')"
            " chooses it.": "cpu use_cpu",
            'Pass the path itself: ckpt_dir="MyDrive/runs/cats" in fit.': "drive_folder",
            "Leave it out: what kind of machine it is, is found out.": "kaggle platform",
            "Write %load_ext autoreload in a cell, or call colabkit.reload().": "autoreload",
            "Call torch.set_num_threads(2) after it.": "num_threads threads",
        }
    ),
)
OF_RELEASE = OtherNames(
    by_name({"timeout_s": "max_wait timeout timeout_ms wait"}),
    by_name(
        {
            "Leave it out: it waits for Drive, unmounts, and gives the machine back.": (
                "delete disconnect flush force shutdown terminate unmount wait_for_drive"
            )
        }
    ),
)
