"""Measurements of a running server, each a script of its own that prints one line."""
