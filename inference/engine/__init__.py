"""The network over a whole scan, streamed: how it is cut, blended, kept small and kept fast."""
