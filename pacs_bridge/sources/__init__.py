"""Archives that are asked for series."""
