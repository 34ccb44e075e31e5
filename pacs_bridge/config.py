"""The bridge configuration, checked as a whole."""
