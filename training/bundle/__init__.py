"""What the MONAI bundle configs in ``configs/`` name.

Thin by design: preprocessing, windows, network and files are those of the clinic.
"""
