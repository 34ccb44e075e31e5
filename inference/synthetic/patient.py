"""A patient made of formulas: the same body on every grid, with exact labels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Self

import numpy as np

from inference.geometry import Geometry
from inference.label_map import LabelMap
from inference.synthetic import (
    abdomen,
    bowel,
    head,
    pelvis,
    ribcage,
    spine,
    surface,
    thorax,
    vessels,
)
from inference.synthetic.noise import scan
from inference.synthetic.painter import Frame, paint
from inference.synthetic.shapes import Box
from inference.synthetic.tissue import Part
from inference.synthetic.traits import Arms, FieldOfView, Metal, Traits, Variation
from inference.volume import AIR_HU, Volume

#: Half width of the reference body with arms up and down, and its half depth, mm.
_HALF_WIDTH_MM = {Arms.UP: 205.0, Arms.DOWN: 275.0}
_HALF_DEPTH_MM = 150.0


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticPatient:
    """All 104 structures as solids in millimetres, and the scan's own traits."""

    seed: int
    traits: Traits
    frame: Frame  #: where the reference body lies in LPS
    body: tuple[Part, ...]  #: in the reference frame, in painting order
    surroundings: tuple[Part, ...]  #: in LPS, painted before the body

    @classmethod
    def from_seed(cls, seed: int) -> Self:
        """The patient of this seed; the same on every machine."""
        streams = np.random.SeedSequence(seed).spawn(2)
        traits = Traits.draw(np.random.default_rng(streams[0]))
        frame = Frame(
            matrix=np.diag(1 / np.asarray(traits.size)) @ traits.pose.T,
            origin_mm=np.asarray(traits.offset_mm),
        )
        body = tuple(_body(traits, Variation(np.random.default_rng(streams[1]))))
        around = tuple(_surroundings(traits, frame))
        return cls(seed, traits, frame, body, around)

    @property
    def box_mm(self) -> Box:
        """LPS bounds of the modelled body, from mid-thigh to above the head."""
        corners = self.frame.to_lps(_reference_box(self.traits, FieldOfView.WHOLE).corners())
        low, high = corners.min(axis=0), corners.max(axis=0)
        return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))

    def sample(self, geometry: Geometry) -> tuple[Volume, LabelMap]:
        """Scan the patient on these planes.

        Parameters
        ----------
        geometry
            Any: tilted, oblique, uneven.

        Returns
        -------
        tuple
            The CT, -1024..3071 HU, and the structure at each voxel centre. The same seed and
            geometry give the same bytes.
        """
        labels = np.zeros(geometry.shape, dtype=np.uint8)
        hu = np.full(geometry.shape, AIR_HU + 24, dtype=np.int16)
        paint(self.surroundings, Frame.scanner(), geometry, labels, hu)
        paint(self.body, self.frame, geometry, labels, hu)
        scan(hu, geometry, self.traits.noise_hu, _noise_rng(self.seed, geometry))
        return Volume(hu, geometry), LabelMap(labels, geometry)


def default_geometry(
    patient: SyntheticPatient,
    spacing_mm: tuple[float, float, float] = (3.0, 1.5, 1.5),
    field_of_view: FieldOfView | None = None,
) -> Geometry:
    """Axial planes from the feet up over the patient's field of view.

    Parameters
    ----------
    patient
        Whose size, place and, by default, field of view to take.
    spacing_mm
        ``(z, y, x)``.
    field_of_view
        Another part of the body than the patient's own scan shows.
    """
    view = field_of_view or patient.traits.field_of_view
    box = _reference_box(patient.traits, view)
    corners = patient.frame.to_lps(box.corners())
    low, high = corners.min(axis=0), corners.max(axis=0)
    # The ends of the reference body are cut square, so the tilt must not show beyond them.
    middle = patient.frame.to_lps([(0.0, 0.0, view.low_mm), (0.0, 0.0, view.high_mm)])[:, 2]
    low[2], high[2] = middle[0], middle[1]
    step = np.asarray(spacing_mm[::-1])
    count = np.maximum(np.ceil((high - low) / step).astype(int), 1)
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = spacing_mm
    affine[:, 3] = [*low, 1.0]
    return Geometry.from_affine(affine, (int(count[2]), int(count[1]), int(count[0])))


def _reference_box(traits: Traits, view: FieldOfView) -> Box:
    width = _HALF_WIDTH_MM[traits.arms]
    if view is FieldOfView.HEAD_NECK:
        width = min(width, 225.0)
    return Box((-width, -_HALF_DEPTH_MM, view.low_mm), (width, _HALF_DEPTH_MM, view.high_mm))


def _body(traits: Traits, vary: Variation) -> list[Part]:
    column = spine.build_spine(vary)
    parts = surface.body_parts(traits)
    parts += ribcage.arm_flesh(traits, vary)
    parts += surface.cavity_parts(column)
    parts += pelvis.pelvic_muscle_parts(column, vary)
    parts += spine.back_muscle_parts(column, vary)
    parts += head.neck_parts(column)
    parts += head.head_parts(traits, vary)
    parts += thorax.lung_parts(column, vary)
    parts += thorax.lung_vessel_parts(traits, vary)
    parts += abdomen.diaphragm_parts(column)
    parts += thorax.mediastinum_parts(column)
    parts += bowel.mesentery_parts()
    parts += bowel.small_bowel_parts(traits, vary)
    parts += abdomen.stomach_parts(traits, vary)
    parts += abdomen.spleen_parts(column, traits, vary)
    parts += abdomen.liver_parts(column, traits, vary)
    parts += abdomen.kidney_parts(traits, vary)
    parts += bowel.colon_parts(vary)
    parts += abdomen.duodenum_parts(traits, vary)
    parts += vessels.portal_parts(column, traits, vary)
    parts += abdomen.pancreas_parts(traits, vary)
    parts += vessels.vena_cava_parts(column, traits, vary)
    parts += thorax.heart_parts(traits, vary)
    parts += thorax.airway_parts(column, vary)
    parts += vessels.aorta_parts(column, traits, vary)
    parts += pelvis.bladder_parts(vary)
    parts += vessels.iliac_parts(column, traits, vary)
    parts += pelvis.hip_parts(traits, vary)
    parts += spine.sacrum_parts(traits, vary)
    parts += pelvis.femur_parts(traits, vary)
    parts += ribcage.rib_parts(column, traits, vary)
    parts += spine.spine_parts(column, traits)
    parts += ribcage.sternum_parts(column, traits)
    parts += ribcage.shoulder_parts(column, traits, vary)
    if traits.metal is Metal.SPINE:
        parts += spine.lumbar_screws(column)
    if traits.metal is Metal.PACEMAKER:
        parts += surface.pacemaker_parts()
    return parts


def _surroundings(traits: Traits, frame: Frame) -> list[Part]:
    if not traits.table:
        return []
    depth = 112.0 + traits.fat_mm
    back = frame.to_lps([(0.0, depth, 250.0), (0.0, depth, -120.0), (0.0, 85.0, 640.0)])
    return surface.table_parts(float(back[:, 1].max()))


def _noise_rng(seed: int, geometry: Geometry) -> np.random.Generator:
    """Noise belongs to a scan, not to the body: another geometry draws another noise."""
    digest = hashlib.sha256(
        b"".join(
            np.ascontiguousarray(np.round(array, 3) + 0.0).tobytes()
            for array in (geometry.origins_mm, geometry.row_step_mm, geometry.column_step_mm)
        )
        + repr(geometry.shape).encode()
    ).digest()
    words = np.frombuffer(digest[:16], dtype="<u4")
    return np.random.default_rng(np.random.SeedSequence([seed, *(int(w) for w in words)]))
