"""The launches of one step of a recipe on a GPU: as a list, and as a picture."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import minigrad as mg
from minigrad.figures import saved_figure
from minigrad.inspect import Launch, Launches, launches

from .. import latent, models
from ..recipe.preset import Preset
from ..steps import RULES, Gan

DEVICE = "gpu"
NETWORKS = ("generator", "discriminator")
KINDS = {"product by cuBLAS": "C0", "kernel of minigrad": "C1", "kernel of CuPy": "0.45"}


def watch(preset: Preset) -> Launches:
    """List the launches and products of one step of the recipe, on noise in place of images.

    Raises as `minigrad.backend.get` does where there is no GPU.
    """
    mg.manual_seed(preset.seed)
    generator, discriminator = (network.to(DEVICE) for network in models.build(preset))
    z = mg.Generator(preset.seed, 1)
    gan = Gan.of(preset, generator, discriminator, lambda n: latent.draw(preset, n, z, DEVICE))
    shape = (preset.batch_size, preset.channels, preset.image_size, preset.image_size)
    real = mg.tensor(mg.Generator(preset.seed, 2).uniform(shape, -1.0, 1.0), device=DEVICE)
    with launches(dict(zip(NETWORKS, (generator, discriminator), strict=True))) as found:
        RULES[preset.step](gan, real)
    return found


def save_picture(found: Launches, path: Path) -> None:
    """Draw the bytes and the operations of each launch as bars, in their order, as a PNG file."""
    listed = found.launches
    with saved_figure(path, (13, 7)) as figure:
        above, below = figure.subplots(2, 1, sharex=True)
        for axes, key, label in ((above, "bytes", "bytes"), (below, "flop", "operations")):
            for kind, colour in KINDS.items():
                at = [i for i, each in enumerate(listed) if _kind(each) == kind]
                heights = [getattr(listed[i], key) for i in at]
                axes.bar([i + 1 for i in at], heights, 0.8, color=colour, label=kind, log=True)
            axes.set_ylabel(f"{label} of a launch")
            axes.set_ylim(bottom=1)
            axes.grid(axis="y", alpha=0.25)
            axes.set_axisbelow(True)
            _shade(axes, listed)
        above.set_xlim(0, len(listed) + 1)
        above.legend(ncols=3, frameon=False, loc="lower right", bbox_to_anchor=(1, 1.12), fontsize="small")
        _name_layers(below, listed)
        below.set_xlabel("the launches in their order, by layers")
        figure.suptitle(found.sums, fontsize="medium", x=0.01, ha="left")


def _kind(launch: Launch) -> str:
    product, ours, cupy = KINDS
    if launch.is_product:
        return product
    return cupy if launch.kernel.startswith("CuPy") else ours


def _spans(listed: Sequence[Launch], key: Any) -> list[tuple[Any, int, int]]:
    """Return the runs of launches that have the same key: (key, number of the first, of the last)."""
    spans, start = [], 1
    for value, group in groupby(listed, key):
        count = len(list(group))
        spans.append((value, start, start + count - 1))
        start += count
    return spans


def _shade(axes: Any, listed: Sequence[Launch]) -> None:
    """Shade every second pass through a network, and write its name above."""
    named = [each for each in _spans(listed, _pass) if each[0][0]]
    for i, ((network, phase), first, last) in enumerate(named):
        if i % 2:
            axes.axvspan(first - 0.5, last + 0.5, color="0.93", zorder=0)
        if axes.get_subplotspec().is_first_row():
            place = axes.get_xaxis_transform()
            axes.text(
                (first + last) / 2, 1.01, f"{network[0].upper()} {phase}", ha="center", va="bottom",
                fontsize="x-small", transform=place, rotation=0 if last - first > 6 else 60,
            )  # fmt: skip


def _pass(launch: Launch) -> tuple[str, str]:
    """The network and the phase; ("", phase) outside of the networks."""
    network = launch.layer.split(".")[0].split(" ")[0]
    return (network if network in NETWORKS else "", launch.phase)


def _name_layers(axes: Any, listed: Sequence[Launch]) -> None:
    """Write the layers below their launches."""
    spans = [span for span in _spans(listed, lambda each: each.layer) if " " in span[0]]
    axes.set_xticks(
        [(first + last) / 2 for _, first, last in spans],
        [layer.split(" ")[1].partition("(")[0] for layer, _, _ in spans],
        rotation=90,
        fontsize=6,
    )
