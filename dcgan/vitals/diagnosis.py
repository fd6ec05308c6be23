"""The diagnosis of vital signs: signs of trouble in plain sentences, with their remedies.

A pure function of the measured steps. A limit that a healthy run may pass for a moment must be passed
at several of them in a row. Not seen are pictures of a few kinds only: those still differ from each other.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from .measure import ACTIVATIONS
from .values import LayerVitals, StepVitals, Values

# D's gradients shrink with 1 - D(x) and D(G(z)): with less than a hundredth of each it hardly learns.
SURE_THRESHOLD = 0.99
# Of pictures that D takes for real: of ten that G draws it finds less than one.
FOOLED_THRESHOLD = 0.9
# Of G's whole gradient. Adam divides by the gradient's size plus 1e-8; of 10,000 numbers or more, which G
# has, this is no more than 1e-8 for each, and the step shrinks with it.
VANISHED_THRESHOLD = 1e-6
# Of a weight's size. float32 keeps 6e-8 of it; healthy layers move by 1e-4 to 1e-2.
UPDATE_THRESHOLD = 1e-7
# Of the differences between real pictures. At their first steps recipes have 0.25 to 0.7; flux, before it
# finds its way, stays at 0.08 from step 40 to 50.
SPREAD_THRESHOLD = 0.05
# Standard deviations. Recipes begin at up to 1.6 and fall below 1 in 300 steps.
GAP_THRESHOLD = 2.0
# Of a layer's units. ReLUs of tensorflow-baseline's D, some of which wait for real pictures, reach 0.3.
DEAD_THRESHOLD = 0.5
# Of the pixels that real pictures have between black and white (MNIST: 0.17), how many G's have at least.
GREY_THRESHOLD = 0.1
# Of a layer inside of a network: its gradients pass through the other tenth alone.
SATURATED_THRESHOLD = 0.9
NAMED = 3  # layers in a sentence


@dataclass(frozen=True)
class Finding(Values):
    """A sign of trouble that a step showed: its name in `SIGNS`, what is wrong, and what people do."""

    sign: str
    sentence: str
    remedy: str

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Return the finding that a JSON object holds. Raises as `Values.from_json` does, and for no sign."""
        found = super().from_json(value)
        if found.sign not in REMEDIES:
            raise ValueError(f"an unknown sign {found.sign!r:.60}")
        return found


@dataclass(frozen=True)
class Sign:
    """One thing that may be wrong.

    Attributes:
        name: in vitals.jsonl.
        times: how many measured steps in a row must show it.
        look: says what the vital signs of a step show, "" for nothing.
        remedy: what people do.
    """

    name: str
    times: int
    look: Callable[[StepVitals], str]
    remedy: str


def findings(measured: Sequence[StepVitals]) -> tuple[Finding, ...]:
    """Return what is wrong at the last of the measured steps, which come in their order."""
    found = []
    for sign in SIGNS:
        recent = [sign.look(vitals) for vitals in measured[-sign.times :]]
        if len(recent) == sign.times and all(recent):
            found.append(finding(sign.name, measured[-1].step, recent[-1]))
    return tuple(found)


def finding(name: str, step: int, sentence: str) -> Finding:
    """Return the finding of a sign at a step; the sentence without its beginning and its full stop."""
    return Finding(name, f"At step {step} {sentence}.", REMEDIES[name])


# -- the signs ---------------------------------------------------------------------------------------


def _not_finite(vitals: StepVitals) -> str:
    names = {"d_x": "D(x)", "d_g_z1": "D(G(z))", "d_g_z2": "D(G(z)) after the first update"}
    bad = [name for key, name in names.items() if getattr(vitals, key) is None]
    layers = [layer for layer in vitals.layers if learns(layer) and layer.gradient_norm is None]
    if layers:
        bad.append(f"the gradient of {_named(layers)}")
    return f"numbers are not finite: {', '.join(bad)}" if bad else ""


def _generator_does_not_move(vitals: StepVitals) -> str:
    layers = [layer for layer in vitals.layers if layer.network == "generator" and learns(layer)]
    norms = [layer.gradient_norm for layer in layers if layer.gradient_norm is not None]
    if not layers or len(norms) < len(layers):
        return ""
    norm = math.hypot(*norms)
    ratios = [layer.update_ratio for layer in layers]  # None where the weights were 0
    fastest = max((ratio for ratio in ratios if ratio is not None), default=0.0)
    if norm < VANISHED_THRESHOLD:
        drifts = (
            "; what its weights still move is the optimiser's momentum" if fastest > UPDATE_THRESHOLD else ""
        )
        return f"the generator does not move: its gradient is gone, its norm is {norm:.2g}{drifts}"
    if fastest < UPDATE_THRESHOLD and None not in ratios:
        return (
            f"the generator does not move: no layer goes further than {fastest:.2g} of its weights' size, "
            f"though its gradient's norm is {norm:.2g}"
        )
    without = [layer for layer in layers if layer.gradient_norm == 0]
    if without:
        return f"a part of the generator does not move: no gradient reaches {_named(without)}"
    return ""


def _discriminator_wins(vitals: StepVitals) -> str:
    d_x, first, second = vitals.d_x, vitals.d_g_z1, vitals.d_g_z2
    if d_x is None or first is None or second is None:
        return ""
    if d_x <= SURE_THRESHOLD or max(first, second) >= 1 - SURE_THRESHOLD:
        return ""
    return (
        f"the discriminator wins: D(x) is {d_x:.4f}, D(G(z)) is {first:.2g}, and {second:.2g} in the "
        "step's second half"
    )


def _generator_wins(vitals: StepVitals) -> str:
    fooled, d_x = vitals.d_g_z1, vitals.d_x
    if fooled is None or d_x is None or fooled <= FOOLED_THRESHOLD:
        return ""
    return f"the generator wins: D takes its pictures for real, D(G(z)) is {fooled:.3f} (D(x) is {d_x:.3f})"


def _collapse(vitals: StepVitals) -> str:
    spread = vitals.spread
    if spread is None or spread >= SPREAD_THRESHOLD:
        return ""
    return (
        "the generator has collapsed: its pictures differ from each other by "
        f"{100 * spread:.2g}% of what real ones do"
    )


def _statistics_apart(vitals: StepVitals) -> str:
    apart = [norm for norm in vitals.batch_norm_gap if norm.gap is not None and norm.gap > GAP_THRESHOLD]
    if not apart:
        return ""
    where = ", ".join(f"by {norm.gap:.1f} in discriminator.{norm.name}" for norm in apart[:NAMED])
    return (
        "the discriminator's BatchNorm finds real and generated pictures far apart: "
        f"{where}, in standard deviations"
    )


def _dead_units(vitals: StepVitals) -> str:
    shares = [(layer.dead, layer) for layer in vitals.layers if layer.dead is not None]
    dead = [(share, layer) for share, layer in shares if share > DEAD_THRESHOLD]
    if not dead:
        return ""
    where = ", ".join(f"{100 * share:.0f}% of {_called(layer)}" for share, layer in dead[:NAMED])
    return f"most units of a layer are dead, above 0 on no picture that G drew: {where}"


def _saturated(vitals: StepVitals) -> str:
    last = {layer.network: layer for layer in vitals.layers}  # the last one stays
    real = vitals.real_saturated
    full = []
    for layer in vitals.layers:
        if layer.saturated is None or layer is last.get("discriminator"):
            continue  # of D's own sigmoid "discriminator-wins" tells
        most = SATURATED_THRESHOLD
        if layer is last.get("generator"):
            if real is None:
                continue
            most = 1 - GREY_THRESHOLD * (1 - real)
        if layer.saturated > most:
            full.append((layer.saturated, layer))
    if not full:
        return ""
    where = ", ".join(f"{100 * share:.1f}% of {_called(layer)}" for share, layer in full[:NAMED])
    of_pictures = any(layer is last.get("generator") for _, layer in full)
    beside = f"; of real pixels {100 * real:.1f}%" if of_pictures and real is not None else ""
    return f"outputs are saturated, and pass next to no gradient: {where}{beside}"


SIGNS = (
    Sign(
        "not-finite",
        1,
        _not_finite,
        "People lower both learning rates, and look for the first such number with "
        "minigrad.inspect.detect_anomaly.",
    ),
    Sign(
        "generator-does-not-move",
        1,
        _generator_does_not_move,
        "People look whether G's loss has the graph that leads through D into G (fakes that are detached, "
        "or drawn outside of the gradient call, have none) and whether lr_generator is next to nothing; they "
        "use the loss -log D(G(z)) (Goodfellow et al. 2014, section 3) and leaky ReLUs in D (Radford et al. "
        "2015).",
    ),
    Sign(
        "discriminator-wins",
        3,
        _discriminator_wins,
        "People lower lr_discriminator or raise lr_generator, smooth the label of real images to 0.9 "
        "(Salimans et al. 2016), put Dropout or noise on what D sees (Arjovsky and Bottou 2017), or make D "
        "smaller.",
    ),
    Sign(
        "generator-wins",
        3,
        _generator_wins,
        "People raise lr_discriminator or lower lr_generator (Heusel et al. 2017 give the two rates of their "
        "own), take Dropout out of D, or make D larger.",
    ),
    Sign(
        "collapse",
        2,
        _collapse,
        "People lower the learning rates and take beta1=0.5 (Radford et al. 2015), use larger batches, let D "
        "see several pictures at once (minibatch discrimination, Salimans et al. 2016; packing, Lin et al. "
        "2018), and start again from a checkpoint before it.",
    ),
    Sign(
        "statistics-apart",
        3,
        _statistics_apart,
        "Real and fake batches are separate here already, as they should be; people lower lr_discriminator, "
        "leave BatchNorm out of D's first layers (Radford et al. 2015), or use spectral normalisation in its "
        "place (Miyato et al. 2018).",
    ),
    Sign(
        "dead-units",
        2,
        _dead_units,
        "People use leaky ReLUs (Radford et al. 2015), a BatchNorm before them, smaller learning rates, and "
        "biases that start at 0.",
    ),
    Sign(
        "saturated",
        2,
        _saturated,
        "People lower lr_generator, start from smaller weights, put a BatchNorm before the activation, and "
        "look whether the images lie between -1 and 1 as tanh's outputs do.",
    ),
)
REMEDIES = {sign.name: sign.remedy for sign in SIGNS}
MAX_TIMES = max(sign.times for sign in SIGNS)  # steps that are looked at


def learns(layer: LayerVitals) -> bool:
    """Whether a layer has parameters: activations have none."""
    return layer.kind not in (activation.__name__ for activation in ACTIVATIONS)


def _called(layer: LayerVitals) -> str:
    return f"{layer.network}.{layer.name} ({layer.kind})"


def _named(layers: Sequence[LayerVitals]) -> str:
    more = f" and {len(layers) - NAMED} more" if len(layers) > NAMED else ""
    return ", ".join(_called(layer) for layer in layers[:NAMED]) + more
