"""Timings, each as a ratio to what a user would do instead, interleaved in one run."""
