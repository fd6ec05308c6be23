"""The vital signs of a run over its steps, as curves."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.figures import drawn_figure, saved_figure

from ..pictures import MARKED, explain_if_empty
from .diagnosis import GAP_THRESHOLD, SPREAD_THRESHOLD, learns
from .line import VitalsLine
from .values import LayerVitals

NETWORKS = ("generator", "discriminator")
NOTHING = "Nothing was measured"


def save(lines: Sequence[VitalsLine], path: Path) -> None:
    """Draw layers, D's judgements, the spread, D's statistics, and what was found, as a PNG file.

    Args:
        lines: of vitals.jsonl, in their order.
    """
    with saved_figure(path, _size(_signs(lines))) as figure:
        _draw_in(figure, lines)


def png(lines: Sequence[VitalsLine]) -> bytes:
    """Return the content of the PNG file that `save` writes."""
    with drawn_figure(_size(_signs(lines))) as (figure, content):
        _draw_in(figure, lines)
    return content.getvalue()


def _signs(lines: Sequence[VitalsLine]) -> list[str]:
    """The signs that were found, by their first steps."""
    return list(dict.fromkeys(found.sign for line in lines for found in line.findings))


def _heights(signs: Sequence[str]) -> list[float]:
    """The heights of the rows of curves, the last for the signs if there are any."""
    return [1.0] * 4 + ([0.12 + 0.11 * len(signs)] if signs else [])


def _size(signs: Sequence[str]) -> tuple[float, float]:
    """Inches."""
    return 12, 2.7 * sum(_heights(signs)) + 0.6


def _draw_in(figure: Any, lines: Sequence[VitalsLine]) -> None:
    signs = _signs(lines)
    of_layers = ("gradient", "update", "units")
    rows: list[Any] = [[f"{what} {network}" for network in NETWORKS] for what in of_layers]
    rows += [["judged", "apart"]]
    rows += [["findings", "findings"]] if signs else []
    axes = figure.subplot_mosaic(rows, height_ratios=_heights(signs), sharex=True)
    marker = {"marker": "o", "markersize": 3} if len(lines) < MARKED else {}
    for network in NETWORKS:
        _draw_layers(axes[f"gradient {network}"], lines, network, "gradient_norm", marker)
        _draw_layers(axes[f"update {network}"], lines, network, "update_ratio", marker)
        _draw_units(axes[f"units {network}"], lines, network, marker)
        axes[f"gradient {network}"].set_title(network)
    for name in ("gradient", "update"):
        _same_range([axes[f"{name} {network}"] for network in NETWORKS])
    axes["gradient generator"].set_ylabel("norm of the gradient")
    axes["update generator"].set_ylabel("update / weights")
    axes["units generator"].set_ylabel("share of a layer")
    _draw_judged(axes["judged"], lines, marker)
    _draw_apart(axes["apart"], lines, marker)
    if signs:
        _draw_findings(axes["findings"], lines, signs)
    for each in [axes["findings"]] if signs else [axes["judged"], axes["apart"]]:
        each.set_xlabel("step")
    for each in (axes["judged"], axes["apart"]):
        each.tick_params(labelbottom=True)
    for each in axes.values():
        each.grid(alpha=0.25)


def _draw_layers(axes: Any, lines: Sequence[VitalsLine], network: str, key: str, marker: Any) -> None:
    """A curve for each layer that learns, from dark (the first) to light, on a logarithmic axis."""
    from matplotlib import colormaps

    names = _names(lines, network, learns)
    colours = colormaps["viridis"](np.linspace(0, 0.92, len(names)))
    for (name, kind), colour in zip(names.items(), colours, strict=True):
        values = _of_layer(lines, network, name, key)
        # 0 has no logarithm: the curve breaks off there.
        steps, seen = _steps(lines), np.where(values > 0, values, np.nan)
        style = "--" if kind == "BatchNorm" else "-"
        axes.plot(steps, seen, style, color=colour, linewidth=1.4, label=f"{name} {kind}", **marker)
    axes.set_yscale("log")
    explain_if_empty(axes, "No number is above 0" if names else NOTHING)
    _legend(axes)


def _draw_units(axes: Any, lines: Sequence[VitalsLine], network: str, marker: Any) -> None:
    """Dead units and saturated outputs of the activations."""
    names = _names(lines, network, lambda layer: not learns(layer))
    for i, (name, kind) in enumerate(names.items()):
        for key in ("dead", "saturated"):
            values = _of_layer(lines, network, name, key)
            if np.isfinite(values).any():
                label = f"{key}: {name} {kind}"
                axes.plot(_steps(lines), values, color=f"C{i}", linewidth=1.4, label=label, **marker)
    explain_if_empty(axes, _why_no_units(lines, network, names))
    axes.set_ylim(-0.02, 1.02)
    _legend(axes)


def _why_no_units(lines: Sequence[VitalsLine], network: str, activations: dict[str, str]) -> str:
    """Return why a network has neither dead units nor saturated outputs."""
    if activations:
        return "Not known: a unit has too few values,\nor some are not finite"
    if _names(lines, network, learns):
        return "No ReLU, Tanh or Sigmoid here:\nno dead units or saturated outputs to count"
    return NOTHING


def _draw_judged(axes: Any, lines: Sequence[VitalsLine], marker: Any) -> None:
    labels = {"d_x": "D(x)", "d_g_z1": "D(G(z))", "d_g_z2": "D(G(z)), in the second half"}
    for i, (key, label) in enumerate(labels.items()):
        axes.plot(
            _steps(lines), _of_line(lines, key), color=f"C{i + 2}", linewidth=1.4, label=label, **marker
        )
    explain_if_empty(axes, "No number is finite")
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("probability of being real")
    _legend(axes)


def _draw_apart(axes: Any, lines: Sequence[VitalsLine], marker: Any) -> None:
    """Generated beside real pictures: their spread, and D's statistics of them, with the limits."""
    axes.plot(
        _steps(lines),
        _of_line(lines, "spread"),
        color="C0",
        linewidth=1.8,
        label="spread / real spread",
        **marker,
    )
    names = list(dict.fromkeys(norm.name for line in lines for norm in line.batch_norm_gap))
    for i, name in enumerate(names):
        gaps = [{n.name: n.gap for n in line.batch_norm_gap}.get(name) for line in lines]
        axes.plot(
            _steps(lines),
            np.array(gaps, np.float64),
            color=f"C{i + 1}",
            linewidth=1.4,
            label=f"statistics apart, D's {name}",
            **marker,
        )
    explain_if_empty(axes, "Not known: it takes two images that differ,\nand numbers that are finite")
    axes.axhline(SPREAD_THRESHOLD, color="C0", linewidth=0.8, linestyle=":")
    if names:
        axes.axhline(GAP_THRESHOLD, color="C1", linewidth=0.8, linestyle=":")
    axes.set_ylim(bottom=-0.05)
    axes.set_ylabel("of the real spread; deviations")
    _legend(axes)


def _draw_findings(axes: Any, lines: Sequence[VitalsLine], signs: Sequence[str]) -> None:
    """A square at each measure that found the sign."""
    for row, sign in enumerate(signs):
        steps = [line.step for line in lines if sign in (found.sign for found in line.findings)]
        axes.plot(steps, [row] * len(steps), color="C3", linestyle="", marker="s", markersize=6)
    axes.set_yticks(range(len(signs)), signs)
    axes.set_ylim(len(signs) - 0.5, -0.5)


def _names(
    lines: Sequence[VitalsLine], network: str, wanted: Callable[[LayerVitals], bool]
) -> dict[str, str]:
    """The names of a network's layers, with their kinds, in its order."""
    layers = (layer for line in lines for layer in line.layers if layer.network == network)
    return {layer.name: layer.kind for layer in layers if wanted(layer)}


def _of_layer(lines: Sequence[VitalsLine], network: str, name: str, key: str) -> NDArray[Any]:
    """A number of a layer at each of the lines, NaN where there is none."""
    places = ({(layer.network, layer.name): getattr(layer, key) for layer in line.layers} for line in lines)
    return np.array([place.get((network, name)) for place in places], np.float64)


def _of_line(lines: Sequence[VitalsLine], key: str) -> NDArray[Any]:
    return np.array([getattr(line, key) for line in lines], np.float64)


def _steps(lines: Sequence[VitalsLine]) -> list[int]:
    return [line.step for line in lines]


def _same_range(some: Sequence[Any]) -> None:
    """The same vertical range, so that the two networks can be compared. Empty axes have no say in it."""
    limits = [axes.get_ylim() for axes in some if np.isfinite(axes.dataLim.y0)]
    for axes in some if limits else ():
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def _legend(axes: Any) -> None:
    if axes.get_lines():
        axes.legend(fontsize="x-small", frameon=False, loc="upper left", bbox_to_anchor=(1, 1.03))
