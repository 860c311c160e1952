"""What people type for the arguments of ``dataset`` and ``pack``, and what to write."""

from __future__ import annotations

from colabkit.other_names import OtherNames, by_name

OF_DATASET = OtherNames(
    by_name(
        {
            "dest": (
                "cache_dir cache_path cache_subdir data_dir data_path data_root dest_dir"
                " destination destination_path download_dir dst into extract_dir extract_path"
                " extract_root extract_to folder local_dir out output output_dir output_path root"
                " save_dir target target_dir to to_dir"
            ),
            "encoding": "charset",
            "members": "allow_patterns data_files files glob include names pattern patterns",
            "password": "passwd pwd",
            "refresh": "force force_download force_extract overwrite redownload reload",
            "sha256": "sha256sum",
            "md5": "md5_hash md5sum",
            "source": "archive file name_or_path path path_or_url src url urls zip_path",
            "token": "api_key auth_token hf_token use_auth_token",
            "unpack": "extract unzip untar",
        }
    ),
    by_name(
        {
            'Write members="!*.tmp": all but those.': (
                "exclude exclude_patterns ignore ignore_patterns skip"
            ),
            "Write sha256= or md5=, in hex.": (
                "check_sha checksum file_hash hash hash_algorithm verify_hash"
            ),
            "Write progress=False for silence; leave it out otherwise.": (
                "quiet show_progress silent verbose"
            ),
            "Leave it out: what is not there yet is fetched, and found the next time.": (
                "cache download exist_ok resume resume_download use_cache"
            ),
            "Leave it out: as many read as the machine has room for.": (
                "max_workers n_jobs num_proc num_workers threads workers"
            ),
            "Leave it out: dataset makes a folder; load its parts from there.": (
                "as_supervised batch_size config_name image_size keep_in_memory label_mode labels"
                " shuffle split streaming subset train transform val with_info"
            ),
            'Write source="hf://datasets/owner/name".': "dataset_name repo_id",
            'Write it into the source: "hf://datasets/owner/name@revision".': "branch revision",
            "Put them where kagglehub looks: KAGGLE_USERNAME and KAGGLE_KEY in os.environ.": (
                "key username"
            ),
            "Write password=open(path).read().strip().": "password_file",
            "Leave it out: folders within folders are taken too.": "recursive",
            "Write members= for a part of it: members='train/*'.": "subfolder subset_dir",
            "Leave it out: its first bytes say what an archive is.": (
                "archive_format compression file_format format"
            ),
            "Leave it out: what fails in passing is tried again.": "retries timeout",
            "Write dest=, the folder to make.": "fname filename name train_data_dir",
            "Leave it out: archives on Drive stay where they are.": (
                "cleanup delete keep_archive remove_finished"
            ),
        }
    ),
)
OF_PACK = OtherNames(
    by_name(
        {
            "archive": "base_name dest dst out output target to zip_path",
            "folder": "base_dir directory path root_dir source src",
        }
    ),
    by_name(
        {
            "Leave it out: an archive that was packed before is kept fresh.": (
                "force overwrite refresh"
            ),
            "Leave it out: what shrinks is deflated.": "compress compression format level",
            "Leave it out: all of the folder is packed, and left as it is; pack a folder of what"
            " you want.": "delete delete_source exclude ignore include pattern recursive",
            "Leave it out: one zip of any size is read in parallel.": "maxcount shards",
            "Write progress=False for silence; leave it out otherwise.": "quiet silent verbose",
        }
    ),
)
