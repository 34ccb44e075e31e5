"""What the frames of an Enhanced or Legacy Converted Enhanced CT say (PS3.3 C.7.6.16, C.8.15.3)."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage

from dicom_seg.synthetic.common_modules import DATE, TIME, instance_uid
from dicom_seg.synthetic.options import ObjectKind, SeriesOptions
from dicom_seg.synthetic.plane import PlaneAttributes, decimals
from dicom_seg.synthetic.uids import synthetic_uid
from inference.geometry import Geometry

#: Image Type and Frame Type of multi-frame CT (PS3.3 C.8.15.2).
FRAME_TYPE = ("ORIGINAL", "PRIMARY", "VOLUME", "NONE")


def shared_groups(geometry: Geometry, options: SeriesOptions) -> Dataset:
    """Functional groups that hold for every frame."""
    places = PlaneAttributes(geometry)
    groups = Dataset()
    groups.CTImageFrameTypeSequence = _one(
        FrameType=list(FRAME_TYPE),
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
    )
    groups.PlaneOrientationSequence = _one(ImageOrientationPatient=places.orientation)
    groups.PixelMeasuresSequence = _one(
        PixelSpacing=places.pixel_spacing, SliceThickness=places.thickness
    )
    if len(options.pixels.rescale) == 1:
        groups.PixelValueTransformationSequence = _rescale(options, 0)
    groups.FrameVOILUTSequence = _one(WindowCenter=40, WindowWidth=400)
    if options.kind is ObjectKind.ENHANCED_CT:
        _add_acquisition(groups, places, options)
    return groups


def frame_groups(
    geometry: Geometry, plane: int, frame: int, dimension_index: int, options: SeriesOptions
) -> Dataset:
    """Functional groups of one frame.

    Parameters
    ----------
    plane
        Index in the stack.
    frame
        Index in the instance.
    dimension_index
        1-based place of the plane among those of the instance, by position.
    """
    places = PlaneAttributes(geometry)
    groups = Dataset()
    content = Dataset()
    content.StackID = str(options.stack)
    content.InStackPositionNumber = dimension_index
    content.DimensionIndexValues = [options.stack, dimension_index]
    if options.acquisition_number is not None:
        content.FrameAcquisitionNumber = options.acquisition_number
    if options.kind is ObjectKind.ENHANCED_CT:
        content.FrameReferenceDateTime = content.FrameAcquisitionDateTime = DATE + TIME
        content.FrameAcquisitionDuration = 500.0
    groups.FrameContentSequence = Sequence([content])
    groups.PlanePositionSequence = _one(ImagePositionPatient=places.position(plane))
    if len(options.pixels.rescale) > 1:
        groups.PixelValueTransformationSequence = _rescale(options, plane)
    if options.kind is ObjectKind.LEGACY_CONVERTED_CT:
        groups.UnassignedPerFrameConvertedAttributesSequence = _one(
            InstanceNumber=frame + 1, SliceLocation=places.location(plane)
        )
        groups.ConversionSourceAttributesSequence = _one(
            ReferencedSOPClassUID=CTImageStorage,
            ReferencedSOPInstanceUID=instance_uid(options, plane + 1) + ".1",
        )
    return groups


def _add_acquisition(groups: Dataset, places: PlaneAttributes, options: SeriesOptions) -> None:
    """Groups that an original Enhanced CT must have (PS3.3 table A.38-2)."""
    groups.CTAcquisitionTypeSequence = _one(
        AcquisitionType="SPIRAL", ConstantVolumeFlag="NO", FluoroscopyFlag="NO"
    )
    groups.CTAcquisitionDetailsSequence = _one(
        RotationDirection="CW",
        RevolutionTime=0.5,
        SingleCollimationWidth=0.6,
        TotalCollimationWidth=19.2,
        TableHeight=150.0,
        GantryDetectorTilt=float(places.tilt),
        DataCollectionDiameter=500.0,
    )
    groups.CTTableDynamicsSequence = _one(
        TableSpeed=20.0, TableFeedPerRotation=10.0, SpiralPitchFactor=0.52
    )
    middle = places.geometry.origins_mm.mean(axis=0).tolist()
    groups.CTPositionSequence = _one(
        TablePosition=0.0,
        DataCollectionCenterPatient=middle,
        ReconstructionTargetCenterPatient=middle,
    )
    groups.CTGeometrySequence = _one(
        DistanceSourceToDetector=1000.0, DistanceSourceToDataCollectionCenter=570.0
    )
    groups.CTReconstructionSequence = _one(
        ReconstructionAlgorithm="FILTER_BACK_PROJ",
        ConvolutionKernel="B30",
        ConvolutionKernelGroup="SOFT_TISSUE",
        ReconstructionDiameter=500.0,
        ReconstructionAngle=360.0,
        ReconstructionPixelSpacing=[float(value) for value in places.pixel_spacing],
        ImageFilter="NONE",
    )
    groups.CTExposureSequence = _one(
        ExposureTimeInms=500.0,
        XRayTubeCurrentInmA=200.0,
        ExposureInmAs=100.0,
        ExposureModulationType="NONE",
        CTDIvol=5.0,
        CTDIPhantomTypeCodeSequence=Sequence([_code(codes.DCM.IECBodyDosimetryPhantom)]),
    )
    groups.CTXRayDetailsSequence = _one(
        KVP=120, FocalSpots=[1.0], FilterType="NONE", FilterMaterial="NONE"
    )
    groups.FrameAnatomySequence = _one(
        FrameLaterality="U", AnatomicRegionSequence=Sequence([_code(codes.SCT.Chest)])
    )
    groups.IrradiationEventIdentificationSequence = _one(
        IrradiationEventUID=synthetic_uid(options.seed, "irradiation", options.series)
    )


def _rescale(options: SeriesOptions, plane: int) -> Sequence:
    slope, intercept = decimals(options.pixels.rescale_of(plane))
    return _one(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="HU")


def _one(**values: object) -> Sequence:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return Sequence([item])


def _code(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme_designator
    item.CodeMeaning = code.meaning
    return item
