"""Windows that look like other scans of other patients."""
