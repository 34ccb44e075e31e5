"""What runs inside Orthanc: the standard library and Orthanc's own API, nothing else of ours."""
