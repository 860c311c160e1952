"""Codecs: the fastest decompressor that is installed, bounded in what it gives out."""

from colabkit.datasets.codecs.decoders import Decoder, Deflate64, ZipLzma, needed, optional
from colabkit.datasets.codecs.streams import (
    ERRORS,
    GZIP,
    PIECE_BYTES,
    RAW_DEFLATE,
    CodecError,
    bz2_decoder,
    decode,
    deflate_decoder,
    inflate,
    lz4_decoder,
    pull_zstd,
    xz_decoder,
    zstd_decoder,
)

__all__ = [
    "ERRORS",
    "GZIP",
    "PIECE_BYTES",
    "RAW_DEFLATE",
    "CodecError",
    "Decoder",
    "Deflate64",
    "ZipLzma",
    "bz2_decoder",
    "decode",
    "deflate_decoder",
    "inflate",
    "lz4_decoder",
    "needed",
    "optional",
    "pull_zstd",
    "xz_decoder",
    "zstd_decoder",
]
