"""The published chain and ours on a real scan, with seeded weights in the published format.

MONAI's side is the published configuration: load, Orientationd RAS, Spacingd, z-score over
non-zero voxels, -1..1, Gaussian sliding window of 96 voxels with overlap 0.25, softmax, arg
max, Invertd with nearest neighbours. Ours is what a user runs: the weights imported from the
``.pt`` file, ``read_nifti``, ``SegResNetSegmenter`` with ``PUBLISHED_INTENSITY``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from monai.inferers.inferer import SlidingWindowInferer
from monai.transforms.compose import Compose
from monai.transforms.intensity.dictionary import NormalizeIntensityd, ScaleIntensityd
from monai.transforms.io.dictionary import LoadImaged
from monai.transforms.post.dictionary import Activationsd, AsDiscreted, Invertd
from monai.transforms.spatial.dictionary import Orientationd, Spacingd
from monai.transforms.utility.dictionary import EnsureChannelFirstd

from inference.intensity import PUBLISHED_INTENSITY
from inference.model_import import import_published
from inference.model_store import ModelStore
from inference.network import PUBLISHED_NETWORK, build_network
from inference.network_grid import NetworkGrid
from inference.nifti import read_nifti
from inference.segmenter import SegmenterOptions, SegResNetSegmenter

pytestmark = [
    pytest.mark.shared,
    # MONAI looks for a DICOM decoder of another vendor, also when it reads NIfTI
    pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning"),
]

SCAN = "totalseg_v1_dataset/s0001/ct.nii.gz"  #: 122 x 101 x 112 voxels of 3 mm
#: Logits closer than this, in units of their spread, are equal within the rounding of single
#: precision through some 30 layers. Seen at voxels that differ: up to 1.2e-4.
TIE = 5e-4


@dataclass(frozen=True)
class Published:
    """What MONAI makes of a file."""

    labels: npt.NDArray[np.uint8]  #: (z, y, x), on the file's grid
    gap: npt.NDArray[np.float32]  #: (x, y, z) of the network: largest minus second logit
    spread: float  #: standard deviation of all logits


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeded weights as the published files hold them."""
    with torch.random.fork_rng():
        torch.manual_seed(20261121)
        weights = build_network(PUBLISHED_NETWORK).state_dict()
    # features are positive: rows of mean zero let many classes win somewhere
    head = weights["conv_final.2.conv.weight"]
    weights["conv_final.2.conv.weight"] = head - head.mean(dim=1, keepdim=True)
    weights["conv_final.2.conv.bias"] = torch.zeros(105)
    path = tmp_path_factory.mktemp("bundle") / "model.pt"
    torch.save(weights, path)
    return path


def published(ct: Path, weights: Path, spacing_mm: float) -> Published:
    chain = Compose(
        [
            LoadImaged(keys="image", reader="NibabelReader"),
            EnsureChannelFirstd(keys="image"),
            Orientationd(keys="image", axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            Spacingd(keys="image", pixdim=[spacing_mm] * 3, mode="bilinear"),
            NormalizeIntensityd(keys="image", nonzero=True),
            ScaleIntensityd(keys="image", minv=-1.0, maxv=1.0),
        ]
    )
    inferer = SlidingWindowInferer(
        roi_size=[96, 96, 96],
        sw_batch_size=1,
        overlap=0.25,
        mode="gaussian",
        padding_mode="replicate",
    )
    network = build_network(PUBLISHED_NETWORK)
    network.load_state_dict(torch.load(weights, weights_only=True))
    data = chain({"image": str(ct)})
    with torch.no_grad():
        logits = inferer(data["image"][None], network.eval())[0]
    largest = logits.as_tensor().topk(2, dim=0).values
    data["pred"] = logits
    post = Compose(
        [
            Activationsd(keys="pred", softmax=True),
            AsDiscreted(keys="pred", argmax=True),
            Invertd(keys="pred", transform=chain, orig_keys="image", nearest_interp=True),
        ]
    )
    labels = post(data)["pred"][0].numpy().astype(np.uint8)
    return Published(labels.T, (largest[0] - largest[1]).numpy(), float(logits.std()))


def compare(ct: Path, weights: Path, spacing_mm: float) -> None:
    theirs = published(ct, weights, spacing_mm)
    store = ModelStore(weights.parent / f"models-{spacing_mm:g}")
    name = import_published(weights, store, spacing_mm=spacing_mm, allow_unknown=True).name
    volume = read_nifti(ct)
    segmenter = SegResNetSegmenter(
        store.load(name), SegmenterOptions(intensity=PUBLISHED_INTENSITY)
    )

    ours = segmenter.segment(volume)

    assert len(ours.present()) > 40  # nothing to compare if one class wins everywhere
    differ = ours.labels != theirs.labels
    print(f"{ct.name} at {spacing_mm} mm: {differ.sum()} of {differ.size} voxels differ")
    assert differ.mean() <= 0.0001
    # and where they differ, MONAI's two largest logits are equal within rounding
    grid = NetworkGrid.covering(volume.geometry, spacing_mm)
    where = grid.from_source()
    gap = grid.grid_view(theirs.gap)
    for z, y, x in np.argwhere(grid.turned_view(differ)):
        place = (where.planes[z], where.rows_of(z)[y], where.columns_of(z)[x])
        index = tuple(np.clip(np.rint(place).astype(int), 0, np.array(gap.shape) - 1))
        assert gap[index] < TIE * theirs.spread
    # which is rare: a comparison that nearly any voxel could escape would show nothing
    assert (theirs.gap < TIE * theirs.spread).mean() < 0.01


def crop(source: Path, target: Path, where: tuple[slice, slice, slice]) -> Path:
    nib.save(nib.load(source).slicer[where], target)
    return target


def test_a_crop_at_3_mm_over_two_windows(
    shared_data: Path, weights_file: Path, tmp_path: Path
) -> None:
    ct = crop(
        shared_data / SCAN, tmp_path / "ct.nii.gz", (slice(0, 104), slice(20, 80), slice(30, 90))
    )

    compare(ct, weights_file, 3.0)


def test_a_crop_at_1_5_mm(shared_data: Path, weights_file: Path, tmp_path: Path) -> None:
    ct = crop(
        shared_data / SCAN, tmp_path / "ct.nii.gz", (slice(30, 76), slice(30, 74), slice(40, 82))
    )

    compare(ct, weights_file, 1.5)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_whole_scan_at_3_mm(shared_data: Path, weights_file: Path) -> None:
    compare(shared_data / SCAN, weights_file, 3.0)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_crop_at_1_5_mm_over_eight_windows(
    shared_data: Path, weights_file: Path, tmp_path: Path
) -> None:
    ct = crop(
        shared_data / SCAN, tmp_path / "ct.nii.gz", (slice(20, 82), slice(20, 84), slice(30, 90))
    )

    compare(ct, weights_file, 1.5)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thorax_stored_lps_at_1_5_mm(shared_data: Path, weights_file: Path) -> None:
    compare(shared_data / "totalseg_thorax" / "ct_cropped.nii.gz", weights_file, 1.5)
