"""HTTP alone: each handler parses a request, calls the core and writes the answer."""
