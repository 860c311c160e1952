"""Datasets: an archive or a folder becomes a verified folder on local disk, once."""

from colabkit.datasets.fetch import dataset

__all__ = ["dataset"]
