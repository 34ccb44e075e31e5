"""The parts of a Segmentation object: request, attributes, segments, frames, bytes."""
