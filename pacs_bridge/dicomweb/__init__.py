"""DICOM over HTTP (PS3.18), as a user agent: what archives and destinations share."""
