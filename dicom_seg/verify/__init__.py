"""Reading a Segmentation back: shares no code with what writes it, but the tables."""
