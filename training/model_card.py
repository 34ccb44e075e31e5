"""A page about a model: what it is for, how it was made, what it reaches."""

from __future__ import annotations

from collections.abc import Sequence

from inference.manifest import ModelManifest
from training.synthetic_evaluation import (
    EVALUATION_SPACING_MM,
    SMALLEST_ML,
    StructureScore,
    dice_by_structure,
    mean_dice,
    swap_count,
)


def short_card(manifest: ModelManifest) -> str:
    """Markdown: all that the manifest knows."""
    return "\n".join(_head(manifest)) + "\n"


def model_card(manifest: ModelManifest, scores: Sequence[StructureScore], command: str) -> str:
    """Markdown with scores on synthetic patients; ``command`` is what measured them."""
    seeds = sorted({s.seed for s in scores})
    spacing = " x ".join(f"{mm:g}" for mm in reversed(EVALUATION_SPACING_MM))
    by_structure = dice_by_structure(scores)
    low = sum(mean < 0.8 for mean, _, _ in by_structure.values())
    lines = [
        *_head(manifest),
        "",
        "## What it reaches",
        f"Synthetic patients {seeds[0]} to {seeds[-1]}, each scanned with "
        f"its own field of view at {spacing} mm, segmented by the clinic's own path, compared "
        "voxel for voxel on the planes of the scan:",
        "",
        f"- mean Dice over structures of {SMALLEST_ML:g} ml and more: "
        f"**{mean_dice(scores):.3f}** ({len(by_structure)} structures, {low} of them below 0.8)",
        f"- left and right swapped: **{swap_count(scores)}**",
        f"- measured by `{command}`",
        "",
        "These are drawings of patients: the figures say nothing about real scans.",
        "",
        "| structure | mean Dice | lowest | scans |",
        "| --- | --- | --- | --- |",
        *(
            f"| {name} | {mean:.3f} | {worst:.3f} | {count} |"
            for name, (mean, worst, count) in by_structure.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def _head(manifest: ModelManifest) -> list[str]:
    network = manifest.network
    says_so = " Every object made with it says so." if manifest.demonstration else ""
    return [
        f"# {manifest.name}, version {manifest.version}",
        "",
        f"**{manifest.intended_use}**{says_so}",
        "",
        f"- Network: SegResNet, {network.init_filters} filters, {network.blocks_down} blocks down, "
        f"{network.blocks_up} up; 105 classes; {manifest.spacing_mm:g} mm",
        f"- Input: HU clamped to {manifest.intensity.clamp_hu}, scaling "
        f"`{manifest.intensity.scaling}`",
        f"- Source: {manifest.source}; licence: {manifest.licence}",
        *(f"- Training, {name}: {value}" for name, value in manifest.training),
        f"- Weights: half precision, SHA-256 `{manifest.weights_sha256}`",
    ]
