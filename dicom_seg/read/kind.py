"""Which instances hold CT slices of a patient.

SOP class and Modality say whether it is a CT. Image Type (PS3.3 C.7.6.1.1.2, C.8.2.1.1.1;
Frame Type C.8.15.3.10) says what was done to it, and is read with care: DERIVED alone is
nothing to skip, since multiplanar and averaged reformats of the scanner are DERIVED too, sit
in the patient and hold Hounsfield units. What is skipped as derived is DERIVED or SECONDARY
with a value that names a projection, a rendering, a map or a capture, or is coloured, or is
DERIVED and has no place in the patient or no Hounsfield units.
"""

from __future__ import annotations

from typing import Final

from dicom_seg.read.attributes import Attributes
from inference.reasons import Reason

CT_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.2.1"
LEGACY_CONVERTED_ENHANCED_CT_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.2.2"
#: The SOP classes that are read.
CT_SOP_CLASSES: Final = (CT_IMAGE, ENHANCED_CT_IMAGE, LEGACY_CONVERTED_ENHANCED_CT_IMAGE)
MULTI_FRAME_CT_SOP_CLASSES: Final = (ENHANCED_CT_IMAGE, LEGACY_CONVERTED_ENHANCED_CT_IMAGE)
MEDIA_STORAGE_DIRECTORY: Final = "1.2.840.10008.1.3.10"

_SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
#: SOP classes of objects about images: they may lie beside a series without being another one.
_COMPANIONS: Final = (
    MEDIA_STORAGE_DIRECTORY,
    "1.2.840.10008.5.1.4.1.1.9",  # waveforms
    "1.2.840.10008.5.1.4.1.1.11",  # presentation states
    "1.2.840.10008.5.1.4.1.1.30",  # parametric map
    "1.2.840.10008.5.1.4.1.1.66",  # raw data, registration, segmentation, surfaces, tracts
    "1.2.840.10008.5.1.4.1.1.67",
    "1.2.840.10008.5.1.4.1.1.68",
    "1.2.840.10008.5.1.4.1.1.88",  # structured reports, key object selection
    "1.2.840.10008.5.1.4.1.1.104",  # encapsulated documents
    "1.2.840.10008.5.1.4.1.1.200",
    "1.2.840.10008.5.1.4.1.1.481",  # radiotherapy
)
_LOCALIZER_VALUES: Final = frozenset(
    {"LOCALIZER", "SCOUT", "SCOUTVIEW", "TOPOGRAM", "TOPO", "SURVIEW", "REF_SURVIEW", "SCANOGRAM"}
)
#: Values that name a projection, a rendering, a map or a capture of the screen.
_DERIVED_VALUES: Final = frozenset(
    {
        "SCREEN SAVE", "SCREENSAVE", "SCREEN_SAVE", "SCREEN CAPTURE", "SCREENSHOT", "SCREEN SHOT",
        "CAPTURE", "PROJECTION IMAGE", "MIP", "MINIP", "MIN_IP", "MAX_IP", "MAXIMUM", "MINIMUM",
        "VRT", "VR", "SSD", "3D", "VOLUME RENDERING", "VOLREN", "RENDERED", "SURFACE", "CPR",
        "DOSE", "DOSE_INFO", "DOSE INFO", "PROTOCOL", "REPORT", "RESULT", "EVALUATION", "CURVE",
        "GRAPH", "PERFUSION", "QUANTITY", "SUBTRACTION", "DIVISION", "MULTIPLICATION", "MASKED",
        "STD_DEVIATION", "FUSED", "FUSION", "OVERLAY", "RGB", "COLOR", "IODINE", "IODINE_MAP",
    }
)  # fmt: skip
#: Rescale Types of Hounsfield units; US is "unspecified" (PS3.3 C.11.1.1.2).
_HOUNSFIELD_TYPES: Final = frozenset({"", "HU", "US"})


def is_companion(sop_class_uid: str) -> bool:
    """True for objects about images, reports and media directories: not a series of slices."""
    return any(
        sop_class_uid == root or sop_class_uid.startswith(root + ".") for root in _COMPANIONS
    )


def wrong_class(sop_class_uid: str, modality: str) -> tuple[Reason, str] | None:
    """Why instances of this class or modality hold no CT slices; None if they may."""
    if sop_class_uid == _SECONDARY_CAPTURE or sop_class_uid.startswith(_SECONDARY_CAPTURE + "."):
        return Reason.DERIVED, "SOP class Secondary Capture"
    if sop_class_uid not in CT_SOP_CLASSES:
        return Reason.NOT_CT, f"SOP class {sop_class_uid[:64] or 'missing'}"
    if modality not in ("CT", ""):
        return Reason.NOT_CT, f"Modality {modality[:16]!r}"
    return None


def wrong_image(image: Attributes, frame_type: tuple[str, ...]) -> tuple[Reason, str] | None:
    """Why an image of a CT class, or one frame of it, is no CT slice; None if it may be one.

    Parameters
    ----------
    image
        Attributes of the instance.
    frame_type
        Image Type, or Frame Type of the frame.
    """
    values = tuple(value.upper() for value in frame_type)
    shown = "Image Type " + "\\".join(values)[:64]
    if _LOCALIZER_VALUES.intersection(values[2:]):
        return Reason.LOCALIZER, shown
    processed = "DERIVED" in values[:1] or "SECONDARY" in values[1:2]
    if processed and _DERIVED_VALUES.intersection(values[2:]):
        return Reason.DERIVED, shown
    photometric = image.text("PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2", ""):
        return Reason.DERIVED, f"Photometric Interpretation {photometric[:16]!r}"
    if "DERIVED" in values[:1] and image.text("BurnedInAnnotation") == "YES":
        return Reason.DERIVED, shown + ", Burned In Annotation YES"
    return None


def is_derived(frame_type: tuple[str, ...]) -> bool:
    """True if the first value of Image Type or Frame Type says DERIVED."""
    return frame_type[:1] == ("DERIVED",)


def is_hounsfield(rescale_type: str) -> bool:
    """True if a Rescale Type is not of another quantity than Hounsfield units."""
    return rescale_type.upper() in _HOUNSFIELD_TYPES
