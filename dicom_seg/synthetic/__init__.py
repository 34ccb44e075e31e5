"""Synthetic CT series: any volume on any geometry, written as DICOM for tests and demo."""
