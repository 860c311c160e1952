"""Archives: planned from their directory alone, then unpacked with every CRC checked."""
