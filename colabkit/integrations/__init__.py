"""Callbacks for other people's trainers, one module for each; imported by name, on use."""
