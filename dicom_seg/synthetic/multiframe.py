"""Planes as frames: Enhanced CT and Legacy Converted Enhanced CT (PS3.3 A.38, A.70)."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from dicom_seg.synthetic.common_modules import DATE, TIME, common_dataset
from dicom_seg.synthetic.ct_instance import plane_order
from dicom_seg.synthetic.functional_groups import FRAME_TYPE, frame_groups, shared_groups
from dicom_seg.synthetic.options import ObjectKind, SeriesOptions
from dicom_seg.synthetic.uids import synthetic_uid
from inference.volume import Volume


def frame_planes(planes: int, options: SeriesOptions) -> list[list[int]]:
    """Planes of each instance, in the order of its frames."""
    order = plane_order(planes, options)
    size = options.frames_per_instance or planes
    return [order[start : start + size] for start in range(0, planes, size)]


def multiframe_dataset(
    volume: Volume, planes: list[int], number: int, options: SeriesOptions
) -> Dataset:
    """Attributes of the instance that holds ``planes`` as its frames; all but Pixel Data.

    Parameters
    ----------
    number
        1-based number of the instance in its stack.
    """
    geometry = volume.geometry
    ds = common_dataset(geometry, options, number)
    ds.ImageType = list(FRAME_TYPE)
    ds.InstanceNumber = number
    ds.NumberOfFrames = len(planes)
    ds.PixelPresentation = "MONOCHROME"
    ds.VolumetricProperties = "VOLUME"
    ds.VolumeBasedCalculationTechnique = "NONE"
    ds.AcquisitionContextSequence = Sequence()
    ds.PresentationLUTShape = "IDENTITY"
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "00"
    _add_dimensions(ds, options)
    if options.kind is ObjectKind.ENHANCED_CT:
        ds.AcquisitionNumber = options.acquisition_number
        ds.AcquisitionDateTime = DATE + TIME
        ds.AcquisitionDuration = 10.0
        ds.ContentQualification = "PRODUCT"
    ds.SharedFunctionalGroupsSequence = Sequence([shared_groups(geometry, options)])
    rank = {plane: i + 1 for i, plane in enumerate(sorted(planes))}
    ds.PerFrameFunctionalGroupsSequence = Sequence(
        [
            frame_groups(geometry, plane, frame, rank[plane], options)
            for frame, plane in enumerate(planes)
        ]
    )
    return ds


def _add_dimensions(ds: Dataset, options: SeriesOptions) -> None:
    """Frames are indexed by stack and by place in it (PS3.3 C.7.6.17)."""
    uid = synthetic_uid(options.seed, "dimensions", options.series)
    organization = Dataset()
    organization.DimensionOrganizationUID = uid
    ds.DimensionOrganizationSequence = Sequence([organization])
    items = []
    for pointer in ("StackID", "InStackPositionNumber"):
        item = Dataset()
        item.DimensionOrganizationUID = uid
        item.DimensionIndexPointer = Tag(pointer)
        item.FunctionalGroupPointer = Tag("FrameContentSequence")
        item.DimensionDescriptionLabel = pointer
        items.append(item)
    ds.DimensionIndexSequence = Sequence(items)
