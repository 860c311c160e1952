"""Folders: listed, looked at twice where they are still written to, and copied."""
