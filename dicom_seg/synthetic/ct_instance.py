"""One plane as one CT Image Storage instance (PS3.3 A.3)."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from dicom_seg.synthetic.common_modules import DATE, TIME, common_dataset
from dicom_seg.synthetic.options import NumberOrder, SeriesOptions
from dicom_seg.synthetic.plane import PlaneAttributes, decimals
from inference.volume import Volume


def ct_dataset(volume: Volume, plane: int, options: SeriesOptions) -> Dataset:
    """Attributes of the instance that holds ``plane``; all but Pixel Data."""
    ds = common_dataset(volume.geometry, options, plane + 1)
    places = PlaneAttributes(volume.geometry)
    slope, intercept = options.pixels.rescale_of(plane)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.InstanceNumber = instance_number(plane, volume.geometry.shape[0], options)
    ds.AcquisitionDate, ds.AcquisitionTime = DATE, TIME
    ds.AcquisitionNumber = options.acquisition_number
    ds.ImagePositionPatient = places.position(plane)
    ds.ImageOrientationPatient = places.orientation
    ds.PixelSpacing = places.pixel_spacing
    ds.SliceThickness = places.thickness
    ds.SliceLocation = places.location(plane)
    ds.GantryDetectorTilt = places.tilt
    ds.RescaleSlope, ds.RescaleIntercept = decimals([slope, intercept])
    ds.RescaleType = "HU"
    ds.KVP = 120
    ds.XRayTubeCurrent = 200
    ds.ExposureTime = 500
    ds.ConvolutionKernel = "B30"
    ds.TableHeight = 150
    ds.WindowCenter = 40
    ds.WindowWidth = 400
    return ds


def instance_number(plane: int, planes: int, options: SeriesOptions) -> int | None:
    """Instance Number of a plane; None where it is to be empty."""
    if options.numbers is NumberOrder.MISSING:
        return None
    if options.numbers is NumberOrder.DUPLICATE:
        return 1
    return 1 + plane_order(planes, options).index(plane)


def plane_order(planes: int, options: SeriesOptions) -> list[int]:
    """Planes in the order in which they are numbered."""
    if options.numbers is NumberOrder.REVERSED:
        return list(range(planes))[::-1]
    if options.numbers is NumberOrder.RANDOM:
        return [int(i) for i in np.random.default_rng(options.seed).permutation(planes)]
    return list(range(planes))
