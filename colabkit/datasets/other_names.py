"""What people type for the arguments of ``dataset`` and ``pack``, and what to write."""

from __future__ import annotations

from colabkit.other_names import OtherNames, by_name

OF_DATASET = OtherNames(
    by_name(
        {
            "dest": (
                "cache_dir cache_subdir data_dir destination dst extract_path extract_to folder"
                " local_dir out output output_dir root target to"
            ),
            "encoding": "charset",
            "members": "allow_patterns files glob include names pattern patterns",
            "password": "passwd pwd",
            "refresh": "force force_download force_extract overwrite redownload reload",
            "sha256": "sha256sum",
            "md5": "md5_hash md5sum",
            "source": "archive file path src url urls zip_path",
            "token": "api_key auth_token hf_token use_auth_token",
            "unpack": "extract unzip untar",
        }
    ),
    by_name(
        {
            'Write members="!*.tmp": all but those.': (
                "exclude exclude_patterns ignore ignore_patterns skip"
            ),
            "Write sha256= or md5=, in hex.": "checksum file_hash hash hash_algorithm",
            "Write progress=False for silence; leave it out otherwise.": (
                "quiet show_progress silent verbose"
            ),
            "Leave it out: what is not there yet is fetched, and found the next time.": (
                "cache download resume resume_download use_cache"
            ),
            "Leave it out: as many read as the machine has room for.": (
                "max_workers n_jobs num_proc num_workers threads workers"
            ),
            "Leave it out: dataset makes a folder; load its parts from there.": (
                "shuffle split streaming subset train transform"
            ),
            "Write dest=, the folder to make.": "fname filename name",
            "Leave it out: archives on Drive stay where they are.": "cleanup delete",
        }
    ),
)
OF_PACK = OtherNames(
    by_name(
        {
            "archive": "dest dst out output target to zip_path",
            "folder": "directory path source src",
        }
    ),
    by_name(
        {
            "Leave it out: an archive that was packed before is kept fresh.": (
                "force overwrite refresh"
            ),
            "Leave it out: what shrinks is deflated.": "compress compression level",
            "Write progress=False for silence; leave it out otherwise.": "quiet silent verbose",
        }
    ),
)
