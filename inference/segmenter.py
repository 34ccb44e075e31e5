"""What segments: the seam between the model and everything that uses label maps.

Importing this module imports no torch: ``SegResNetSegmenter`` loads what it needs when it is
made.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeGuard

import numpy as np
import numpy.typing as npt

from inference.engine.arithmetic import forbid_tf32, threads
from inference.engine.coarse_pass import CoarsePass
from inference.engine.memory import available_bytes, free_bytes, free_card_bytes, gigabytes
from inference.engine.memory_fit import MemoryFit, MemoryMeter, is_card
from inference.engine.memory_need import MemoryNeed, PlannedRun
from inference.engine.network_scan import NetworkScan
from inference.engine.plan import plan_windows, usual_carry
from inference.engine.region import Region
from inference.engine.resource_errors import resource_errors
from inference.errors import ModelError
from inference.geometry import Geometry
from inference.identity import WANTED_PARAMETER, SegmenterIdentity
from inference.label_map import LabelMap
from inference.ladder import ladder, on_cpu
from inference.network import build_network
from inference.network_grid import NetworkGrid
from inference.padding import clear_padding
from inference.postprocessing import NO_POSTPROCESSING, postprocess
from inference.preprocessing import labels_to_source, standings_to_source
from inference.reasons import Reason
from inference.segmenter_options import SegmenterOptions
from inference.standings import FIRST, STANDING_BYTES
from inference.volume import Volume
from inference.wanted_labels import keep_labels, wanted_labels

if TYPE_CHECKING:
    from inference.model_store import LoadedModel

__all__ = [
    "FittingSegmenter",
    "Progress",
    "SegResNetSegmenter",
    "Segmenter",
    "SegmenterOptions",
    "fitted_segmenter",
    "settles_how_it_runs",
]

#: Told the finished share of the work, 0 to 1, non-decreasing.
Progress = Callable[[float], None]

#: Shares of the work as measured for 1.5 mm: before the network, and with it.
_PREPARED, _INFERRED = 0.03, 0.98
#: Of a coarse pass, where there is one.
_COARSE = 0.15


class Segmenter(Protocol):
    """Turns a CT into a label map on the same planes."""

    @property
    def identity(self) -> SegmenterIdentity:
        """Who makes the label maps."""

    def segment(self, volume: Volume, progress: Progress | None = None) -> LabelMap:
        """Label every voxel of ``volume``.

        Parameters
        ----------
        volume
            CT numbers on parallel planes.
        progress
            Told the finished share of the work.

        Raises
        ------
        InferenceError
            ``model-error``, ``oom-cpu`` or ``oom-gpu``.
        """


class FittingSegmenter(Segmenter, Protocol):
    """A segmenter that settles how it runs once it knows the planes."""

    def fitted(
        self, scans: Sequence[Geometry], *, is_read: bool = False, promised_bytes: int = 0
    ) -> Segmenter:
        """The segmenter for scans of this size on this machine; see ``fitted_segmenter``."""

    def main_memory_bytes(self, geometry: Geometry) -> int:
        """Main memory that a scan takes as it is asked for, beyond the scan itself."""


def settles_how_it_runs(segmenter: Segmenter) -> TypeGuard[FittingSegmenter]:
    """Whether a segmenter is a ``FittingSegmenter``; nothing of it is called.

    A runtime protocol may ask for ``identity``, and one that is not loaded yet would be.
    """
    methods = ("fitted", "main_memory_bytes")
    return all(callable(getattr(type(segmenter), name, None)) for name in methods)


def fitted_segmenter(
    segmenter: Segmenter, *scans: Geometry, is_read: bool = False, promised_bytes: int = 0
) -> Segmenter:
    """The segmenter that will run on planes like these.

    Its identity says what changes the result, for instance single precision sums that had to
    give way to half precision ones, and how it is run here.

    Parameters
    ----------
    segmenter
        One that does not care is returned as it is.
    scans
        Segmented one after the other in one way, that of the scan that needs most.
    is_read
        Whether they are in memory already.
    promised_bytes
        Main memory that others in this process will take.

    Raises
    ------
    ModelError
        ``oom-cpu`` if not even the smallest way fits into memory.
    """
    if not settles_how_it_runs(segmenter):
        return segmenter
    return segmenter.fitted(scans, is_read=is_read, promised_bytes=promised_bytes)


class SegResNetSegmenter:
    """The published chain: resample, normalise, sliding window, arg max, back to the source.

    Parameters
    ----------
    model
        From a model store.
    options
        How it is run.
    finder
        Segments coarsely to find the wanted structures; None: the whole body is computed.
    memory
        Tells the main memory that can be had, bytes; None: not known.
    card_memory
        Tells the same of a card.
    """

    def __init__(
        self,
        model: LoadedModel,
        options: SegmenterOptions | None = None,
        finder: Segmenter | None = None,
        memory: Callable[[], int | None] = available_bytes,
        card_memory: Callable[[str], int] = free_card_bytes,
    ) -> None:
        self._options = options or SegmenterOptions()
        self._model = model
        self._finder = finder if self._options.structures else None
        self._memory = MemoryMeter(memory, card_memory)
        self._intensity = self._options.intensity or model.manifest.intensity
        self._execution: tuple[tuple[str, str], ...] = ()
        self._load()

    def _load(self) -> None:
        """Put the network onto its device."""
        import torch

        from inference.engine.split_network import SplitNetwork

        network = build_network(self._model.manifest.network)
        network.load_state_dict(dict(self._model.state_dict))
        device = torch.device(self._options.device)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ModelError(Reason.MODEL_ERROR, f"device {self._options.device}: not available")
        with resource_errors():
            self._network = SplitNetwork.of_segresnet(network).to(device, self._options.windows)

    @property
    def identity(self) -> SegmenterIdentity:
        """Model, digest, and every setting that changes the result."""
        manifest, options, windows = self._model.manifest, self._options, self._options.windows
        clamp = self._intensity.clamp_hu
        parameters = {
            "channels_last": str(windows.channels_last).lower(),
            "clamp_hu": "none" if clamp is None else f"{clamp[0]}..{clamp[1]}",
            "computed": "body" if options.body_only else "all",
            "device": options.device.split(":")[0],
            "overlap": f"{windows.overlap:g}",
            "postprocessing": str(options.postprocessing),
            "precision": str(windows.precision),
            "scaling": str(self._intensity.scaling),
            "spacing_mm": f"{manifest.spacing_mm:g}",
            "window_voxels": str(windows.window_voxels),
        }
        if options.carry not in (None, usual_carry(windows.precision)):
            parameters["sums"] = str(options.carry)
        if options.smooth_borders:
            parameters["borders"] = "smooth"
        if options.structures:
            parameters[WANTED_PARAMETER] = " ".join(sorted(options.structures))
            if self._finder is not None:
                parameters["found_by"] = self._finder.identity.digest
        return SegmenterIdentity(
            name=manifest.name,
            version=manifest.version,
            digest=manifest.weights_sha256,
            demonstration=manifest.demonstration,
            intended_use=manifest.intended_use,
            parameters=tuple(sorted(parameters.items())),
            source=f"{manifest.source}; {manifest.licence}",
            execution=self._execution,
        )

    def fitted(
        self, scans: Sequence[Geometry], *, is_read: bool = False, promised_bytes: int = 0
    ) -> Segmenter:
        """The same segmenter, run in the first way that fits; see ``fitted_segmenter``.

        Tried in this order: as asked for; sums between layers in half precision; on the CPU
        in place of the card.
        """
        for options in ladder(self._options):
            needs = [self._need(each, options) for each in scans]
            with resource_errors():  # a card may be gone since the last scan
                found = self._memory.fit(
                    options.device, needs, is_read=is_read, promised=promised_bytes
                )
                if found.is_enough:
                    return self._as(options, found)
        voxels = " and ".join(str(each.shape) for each in scans)
        wanted, free = gigabytes(found.main), gigabytes(found.main_free)
        raise ModelError(Reason.OOM_CPU, f"{wanted} needed for {voxels} voxels, {free} available")

    def need(self, geometry: Geometry) -> MemoryNeed:
        """Memory for a scan of this size if nothing of it is air."""
        return self._need(geometry, self._options)

    def main_memory_bytes(self, geometry: Geometry) -> int:
        """Main memory for a scan of this size, beyond the scan itself."""
        return self.need(geometry).main_bytes(on_card=self._on_card, is_read=True)

    def segment(self, volume: Volume, progress: Progress | None = None) -> LabelMap:
        """Label every voxel of ``volume``; see ``Segmenter``.

        Peak memory beyond the volume: what ``inference.engine.memory`` estimates. No volume of
        floating point numbers is made.
        """

        def report(share: float) -> None:
            if progress is not None:
                progress(share)

        options, begun = self._options, 0.0
        with resource_errors():
            wanted = self.main_memory_bytes(volume.geometry)
            free = free_bytes(wanted, self._memory.main)
            if free is not None and wanted > free:
                text = f"{gigabytes(wanted)} needed, {gigabytes(free)} available"
                raise ModelError(Reason.OOM_CPU, text)
            grid = NetworkGrid.covering(volume.geometry, self._model.manifest.spacing_mm)
            coarse: CoarsePass | None = None
            if self._finder is not None:
                begun = _COARSE
                found_by = self._finder.segment(volume, lambda share: report(share * begun))
                coarse = CoarsePass(options.structures, found_by)
            scan = NetworkScan.of(volume, grid, self._intensity)
            body = Region.body(scan) if options.body_only or coarse is not None else None
            region = body if coarse is None or body is None else coarse.region(scan, body)
            report(begun + _PREPARED * (1 - begun))
            standing = (STANDING_BYTES,) if options.smooth_borders else ()
            found = np.zeros((*grid.grid_shape, *standing), dtype=np.uint8)
            first, last = (begun + at * (1 - begun) for at in (_PREPARED, _INFERRED))
            middle = last if region is body else (first + last) / 2
            self._compute(scan, region, found, lambda at: report(first + at * (middle - first)))
            labels = found[..., FIRST] if options.smooth_borders else found
            if coarse and body and region and not coarse.was_right(labels, region, body):
                region = body
                self._compute(scan, body, found, lambda at: report(middle + at * (last - middle)))
            del labels
            self._note_left_out(region)
            del scan
            if options.smooth_borders:
                placed = standings_to_source(found, grid)
            else:
                placed = labels_to_source(grid.network_view(found), grid)
            del found
            clear_padding(placed, volume)
            cleaned = postprocess(placed, options.postprocessing)
            if cleaned is not placed:  # holes may have been padding
                clear_padding(cleaned, volume)
            keep_labels(cleaned, wanted_labels(options.structures))  # others were no holes
        report(1.0)
        return cleaned

    @property
    def _on_card(self) -> bool:
        return is_card(self._options.device)

    def _compute(
        self,
        scan: NetworkScan,
        region: Region | None,
        found: npt.NDArray[np.uint8],
        report: Callable[[float], None],
    ) -> None:
        """Labels or standings of a region; None: of everything."""
        from inference.sliding_window import segment_scan

        if region is not None and region.is_empty:
            return
        options, network = self._options, self._network
        shape = scan.sampler.grid.grid_shape
        plan = plan_windows(shape, options.windows, network.features, region, options.carry)
        forbid_tf32()
        segment_scan(network, scan, plan, found, report)

    def _note_left_out(self, region: Region | None) -> None:
        """Say in the identity what was not computed of the last scan."""
        share = f"{0 if region is None else 1 - region.share:.1%}"
        self._execution = tuple({**dict(self._execution), _LEFT_OUT: share}.items())

    def _need(self, geometry: Geometry, options: SegmenterOptions) -> MemoryNeed:
        """Memory for a scan of this size if nothing of it is air."""
        grid = NetworkGrid.covering(geometry, self._model.manifest.spacing_mm).grid_shape
        everything = Region.everything(grid) if options.body_only else None
        features = self._network.features
        plan = plan_windows(grid, options.windows, features, everything, options.carry)
        run = PlannedRun(
            plan=plan,
            features=features,
            classes=self._network.classes,
            grid=grid,
            source=geometry.shape,
            grid_voxel_bytes=STANDING_BYTES if options.smooth_borders else 1,
            is_cleaned=options.postprocessing != NO_POSTPROCESSING,
            on_card=is_card(options.device),
        )
        need = run.memory_need()
        if not isinstance(self._finder, SegResNetSegmenter):
            return need
        labels = math.prod(geometry.shape) + math.prod(grid)
        of_finder = self._finder._options
        is_there = is_card(of_finder.device) == is_card(options.device)
        finding = of_finder if is_there else on_cpu(of_finder)
        return need.with_coarse_pass(self._finder._need(geometry, finding), labels)

    def _as(self, options: SegmenterOptions, found: MemoryFit) -> SegResNetSegmenter:
        """The same segmenter with other options, and with what is known of its run."""
        other = copy.copy(self)
        other._options = options
        if options.device != self._options.device:
            other._load()
            other._finder = _finder_on_cpu(self._finder)
        other._execution = (
            ("asked_device", self._options.device),
            ("device", options.device),
            *found.facts,
            ("sums", str(options.carry or usual_carry(options.windows.precision))),
            ("threads", str(threads())),
        )
        return other


#: Share of a scan outside the region; windows may reach further.
_LEFT_OUT = "outside_region"


def _finder_on_cpu(finder: Segmenter | None) -> Segmenter | None:
    """The coarse pass beside a network on the CPU: a card that is full has no room for it."""
    if not isinstance(finder, SegResNetSegmenter):
        return finder
    return finder._as(on_cpu(finder._options), MemoryFit(0, None))
