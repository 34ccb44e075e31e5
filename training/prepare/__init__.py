"""From the raw TotalSegmentator v1 dataset to scans with one label file each."""
