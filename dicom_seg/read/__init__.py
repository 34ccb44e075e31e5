"""DICOM files to volumes: examine, stack, plan, decode."""
