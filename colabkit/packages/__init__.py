"""Packages a notebook needs: installed once, kept on Drive, there again on the next machine."""

from colabkit.packages.installing import Installed, install_packages
from colabkit.packages.requests import PackageRequest, names_a_file, read_request

__all__ = ["Installed", "PackageRequest", "install_packages", "names_a_file", "read_request"]
