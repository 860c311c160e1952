"""Writing: the folder that is unpacked into, and the processes that fill it."""
