"""Run a shell command from a browser or one curl, and let anybody watch its output live.

The package holds the core; `tornado_logs.sources` holds the sources that come with it and
`tornado_logs.templates` the pages. `ARCHITECTURE.md` says where to start reading.
"""

__version__ = "0.1.0"
