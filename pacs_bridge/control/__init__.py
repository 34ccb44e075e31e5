"""State and steering of a running service over HTTP."""
