"""Results to their destinations."""
