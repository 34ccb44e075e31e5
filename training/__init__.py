"""Offline work for the people who make the next weights."""
