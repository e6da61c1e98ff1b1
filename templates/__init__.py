"""The pages, as Tornado templates, and in `static/` their CSS and ES modules."""
