"""Whole archives: which of their series can be segmented, the work on them, and its account."""
