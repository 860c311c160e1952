"""Packing: a folder of many small files becomes one archive, kept fresh."""
