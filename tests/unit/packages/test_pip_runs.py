"""What pip answers is read whichever pip it is."""

from __future__ import annotations

import hashlib

import pytest

from colabkit.packages.pip_runs import _planned

SHA256 = hashlib.sha256(b"a wheel").hexdigest()


@pytest.mark.parametrize(
    "archive",
    [{"hash": f"sha256={SHA256}"}, {"hash": f"sha256={SHA256}", "hashes": {"sha256": SHA256}}],
    ids=["pip 23.0", "pip 23.1"],
)
def test_what_an_address_leads_to_is_known_by_its_hash(archive):
    address = "file:///wheels/tinyneed-2.1-py3-none-any.whl"
    planned = _planned(
        {
            "metadata": {"name": "tinyneed", "version": "2.1"},
            "is_direct": True,
            "download_info": {"url": address, "archive_info": archive},
        }
    )
    assert planned.source == f"tinyneed @ {address}"
    assert planned.content == SHA256
