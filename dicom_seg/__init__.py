"""DICOM to arrays and back: slice tables, series reading, Segmentation objects, verification."""
