"""dcmqi as a writer of Segmentations: its inputs, and one run of it.

It reads the source series and an NRRD file of labels, which ours has in memory; both lie in the
page cache. That is the only way in which it is offered, so its time is that of all of it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sysconfig
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from dicom_seg.synthetic.acquisition import stack
from dicom_seg.synthetic.series import write_ct_series
from inference.volume import Volume

PROGRAM = Path(sysconfig.get_path("purelib")) / "dcmqi" / "bin" / "itkimage2segimage"


def write_inputs(folder: Path, labels: np.ndarray, spacing_mm: tuple[float, float, float]) -> None:
    """A series of zeros, the labels on its planes, and what the segments are."""
    volume = Volume(np.zeros(labels.shape, np.int16), stack(labels.shape, spacing_mm))
    (folder / "series").mkdir()
    write_ct_series(volume, folder / "series")
    image = sitk.GetImageFromArray(labels)
    affine = volume.geometry.affine[:3]
    image.SetSpacing(spacing_mm[::-1])
    image.SetOrigin(affine[:, 3].tolist())
    image.SetDirection((affine[:, [2, 1, 0]] / np.array(spacing_mm[::-1])).ravel().tolist())
    sitk.WriteImage(image, str(folder / "labels.nrrd"))
    present = [int(label) for label in np.unique(labels) if label]
    (folder / "metadata.json").write_text(json.dumps(_metadata(present)))


def write(folder: Path, kind: str, path: Path) -> tuple[float, float]:
    """Run it on ``write_inputs``' files; seconds of wall clock and of CPU."""
    command = [
        *(PROGRAM, "--inputDICOMDirectory", folder / "series"),
        *("--inputImageList", folder / "labels.nrrd", "--inputMetadata", folder / "metadata.json"),
        *("--segmentationType", kind, "--outputDICOM", path),
    ]
    wall, cpu = time.perf_counter(), _children_cpu_s()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - wall, _children_cpu_s() - cpu


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _metadata(labels: list[int]) -> dict[str, object]:
    def code(value: str, meaning: str) -> dict[str, str]:
        return {"CodeValue": value, "CodingSchemeDesignator": "SCT", "CodeMeaning": meaning}

    segments = [
        {
            "labelID": label,
            "SegmentLabel": f"s{label}",
            "SegmentAlgorithmType": "AUTOMATIC",
            "SegmentAlgorithmName": "a",
            "SegmentedPropertyCategoryCodeSequence": code("85756007", "Tissue"),
            "SegmentedPropertyTypeCodeSequence": code("10200004", "Liver"),
        }
        for label in labels
    ]
    return {"SeriesDescription": "s", "SeriesNumber": "1", "segmentAttributes": [segments]}
