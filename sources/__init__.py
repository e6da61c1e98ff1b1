"""The sources that come with tornado-logs. Each imports `tornado_logs.source` alone."""
