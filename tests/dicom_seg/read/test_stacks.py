"""Planes in any order to stacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dicom_seg.read.planes import SEPARATORS, Plane
from dicom_seg.read.slice_table import PixelSource, SliceRow
from dicom_seg.read.stacks import by_orientation, collisions, in_order, overlap, separate


def plane(z_mm, uid, cosines=(1.0, 0, 0, 0, 1.0, 0), **traits):
    """A small plane; ``traits`` by keyword of its separators."""
    return Plane(
        row=SliceRow(
            path=Path(uid),
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            sop_instance_uid=uid,
            frame_number=None,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            origin_mm=(0.0, 0.0, z_mm),
            row_cosine=tuple(cosines[:3]),
            column_cosine=tuple(cosines[3:]),
            row_spacing_mm=1.0,
            column_spacing_mm=1.0,
            rows=8,
            columns=8,
            rescale_slope=1.0,
            rescale_intercept=0.0,
            padding=None,
            pixels=PixelSource(0, 128, 1, 16, 16, 15, signed=True),
        ),
        frame_of_reference_uid="1.2.3",
        traits=tuple(str(traits.get(keyword, "")) for keyword in SEPARATORS),
        lossy=False,
    )


def series(positions_mm, start=0, **traits):
    return [plane(float(z), f"1.{start + i}", **traits) for i, z in enumerate(positions_mm)]


def unshared(stack):
    return not collisions(stack)


def test_order_is_by_position_whatever_came_first(rng):
    planes = series(np.arange(30) * 0.7 - 12)

    for _ in range(5):
        shuffled = [planes[i] for i in rng.permutation(30)]
        assert in_order(shuffled) == tuple(planes)


def test_order_follows_the_normal_and_not_z():
    downwards = (1.0, 0, 0, 0, -1.0, 0)  # feet-first prone: the normal points to the feet
    planes = [plane(float(z), f"1.{z}", downwards) for z in range(5)]

    assert [p.row.origin_mm[2] for p in in_order(planes)] == [4, 3, 2, 1, 0]


def test_noise_of_orientation_is_one_group_and_the_order_of_arrival_does_not_matter(rng):
    axial = [
        plane(float(z), f"1.{z}", np.array([1.0, 0, 0, 0, 1.0, 0]) + rng.uniform(-4e-5, 4e-5, 6))
        for z in range(12)
    ]
    coronal = [plane(float(z), f"2.{z}", (1.0, 0, 0, 0, 0, -1.0)) for z in range(3)]
    known = by_orientation(axial + coronal)

    assert [len(group) for group in known] == [12, 3]
    for _ in range(5):
        mixed = axial + coronal
        assert by_orientation([mixed[i] for i in rng.permutation(15)]) == known


def test_cosines_of_four_decimals_that_differ_in_the_last_one_are_one_group():
    one = (0.9985, 0.0542, 0.0123, -0.0536, 0.9974, -0.0479)
    other = (0.9985, 0.0543, 0.0122, -0.0537, 0.9974, -0.0478)
    planes = [plane(float(z), f"1.{z}", other if z % 5 == 0 else one) for z in range(12)]

    assert [len(group) for group in by_orientation(planes)] == [12]


def test_planes_a_tenth_of_a_step_apart_share_a_position():
    planes = in_order(series([0, 5, 10, 15]) + series([0.3, 5.3, 10.3, 15.3], start=4))

    assert [len(group) for group in collisions(planes)] == [2, 2, 2, 2]


def test_a_short_step_among_others_is_no_shared_position():
    assert collisions(in_order(series([0, 2, 4, 4.6, 6, 8]))) == []


@pytest.mark.parametrize(
    "keyword", ["AcquisitionNumber", "TemporalPositionIndex", "ConvolutionKernel", "ImageType"]
)
def test_an_attribute_separates_stacks(keyword):
    one = series(range(10), **{keyword: "a"})
    other = series(range(12), start=10, **{keyword: "b"})

    stacks = separate(in_order(one + other), unshared, most=4)

    assert [(len(s.planes), s.separated_by) for s in stacks] == [
        (10, f"{keyword}=a"),
        (12, f"{keyword}=b"),
    ]


def test_two_attributes_together_separate_stacks():
    planes = []
    for phase in (20, 70):
        for kernel in ("soft", "bone"):
            traits = {"NominalPercentageOfCardiacPhase": phase, "ConvolutionKernel": kernel}
            planes += series(range(10), start=len(planes), **traits)

    stacks = separate(in_order(planes), unshared, most=8)

    assert [len(stack.planes) for stack in stacks] == [10] * 4
    assert stacks[0].separated_by == "NominalPercentageOfCardiacPhase=20, ConvolutionKernel=bone"
    assert [stack.told_as for stack in stacks] == [
        f"NominalPercentageOfCardiacPhase, ConvolutionKernel, {number} of 4"
        for number in (1, 2, 3, 4)
    ]


def test_the_attribute_that_makes_the_fewest_stacks_is_taken():
    planes = [
        plane(float(z), f"1.{phase}.{z}", AcquisitionNumber=phase * 3 + z // 4, KVP=80 + phase)
        for phase in range(2)
        for z in range(12)
    ]

    stacks = separate(in_order(planes), unshared, most=6)

    assert [stack.separated_by for stack in stacks] == ["KVP=80", "KVP=81"]


def test_a_number_that_differs_from_plane_to_plane_separates_nothing():
    planes = [
        plane(float(z), f"1.{twice}.{z}", AcquisitionNumber=2 * z + twice)
        for z in range(10)
        for twice in range(2)
    ]

    assert separate(in_order(planes), unshared, most=4) is None


def test_a_time_that_differs_from_rotation_to_rotation_separates_nothing():
    planes = series(range(12)) + series([6], start=12)
    timed = [
        replace(
            one,
            traits=tuple(
                str(i // 4) if keyword == "AcquisitionTime" else value
                for keyword, value in zip(SEPARATORS, one.traits, strict=True)
            ),
        )
        for i, one in enumerate(planes)
    ]

    assert separate(in_order(timed), unshared, most=3) is None


def test_stacks_overlap_or_follow_each_other():
    def stacks(first, second):
        planes = series(first, KVP=1) + series(second, start=50, KVP=2)
        return separate(in_order(planes), unshared, most=2)

    assert overlap(stacks(range(10), np.arange(10) + 0.5))
    assert not overlap(stacks(range(10), np.arange(10) + 10))
