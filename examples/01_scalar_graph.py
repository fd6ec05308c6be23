"""The chain rule on a graph of single numbers, walked backwards by hand.

    python examples/01_scalar_graph.py                       # y = a tanh(a b + c) at 0.8, 1.5, -0.7
    python examples/01_scalar_graph.py --at 2 -0.3 0.1       # a, b and c
    python examples/01_scalar_graph.py --out graph.png

A computation is a list of steps, each of which makes one number of numbers made before. Every step knows
its own derivatives ∂v/∂u, with respect to its inputs alone. To get those of the last number y, walk the
list backwards and keep, for every number v, dy/dv:

    dy/dy = 1, and for a step v = f(..., u, ...):   dy/du += dy/dv ∂v/∂u

`+=`, since u may be used by several steps (here a is used by two), and y feels each use. Walked in the
reverse of the order in which the steps were made, dy/dv is whole before it is passed on. That is all
that `Tensor.backward` does (minigrad/backpropagate.py), with arrays in place of numbers.
"""

import argparse
import math
from dataclasses import dataclass

import minigrad as mg
import minigrad.functional as F
from minigrad.figures import saved_figure

LEAVES = ("a", "b", "c")
STEP = 1e-5  # of the differences: their error is about STEP^2, and rounding adds 1e-16 / STEP

# Where each number stands in the picture.
PLACES = {"b": (0, 0), "a": (0, 1.5), "c": (1.7, -0.7), "p": (1.7, 0.5), "q": (3.4, 0), "r": (5.1, 0),
          "y": (6.8, 0.75)}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One step: `name` = `formula`, its value, and its derivative with respect to each input."""

    name: str
    formula: str
    value: float
    local: tuple[tuple[str, float], ...]  # pairs (input, ∂name/∂input)


def forward(a, b, c):
    """y = a tanh(a b + c), as a list of steps."""
    p = a * b
    q = p + c
    r = math.tanh(q)
    y = a * r
    return [
        Step("p", "a * b", p, (("a", b), ("b", a))),
        Step("q", "p + c", q, (("p", 1.0), ("c", 1.0))),
        Step("r", "tanh(q)", r, (("q", 1 - r * r),)),
        Step("y", "a * r", y, (("a", r), ("r", a))),
    ]


def backward(steps):
    """dy/dv for every number v, and the walk: (step, input, dy/dv, ∂v/∂u, what it adds to dy/du)."""
    gradients = dict.fromkeys((*LEAVES, *(s.name for s in steps)), 0.0)
    gradients[steps[-1].name] = 1.0
    walk = []
    for step in reversed(steps):
        for source, local in step.local:
            part = gradients[step.name] * local
            gradients[source] += part
            walk.append((step, source, gradients[step.name], local, part))
    return gradients, walk


def by_minigrad(at):
    """The gradients of a, b and c as the engine has them, in float64."""
    a, b, c = (mg.tensor(v, dtype="float64", requires_grad=True) for v in at)
    y = a * F.tanh(a * b + c)
    y.backward()
    return [t.grad.item() for t in (a, b, c)]


def by_differences(at):
    """The same, from values alone: (y(v + h) - y(v - h)) / 2h."""
    slopes = []
    for i in range(len(at)):
        high, low = list(at), list(at)
        high[i] += STEP
        low[i] -= STEP
        slopes.append((forward(*high)[-1].value - forward(*low)[-1].value) / (2 * STEP))
    return slopes


def draw(at, steps, gradients, path):
    """The graph: values forward in black, dy/dv in red, local derivatives on the edges."""
    with saved_figure(path, (10, 4.2)) as figure:
        axes = figure.subplots()
        labels = {name: f"{name} = {v:.4g}" for name, v in zip(LEAVES, at, strict=True)}
        labels |= {s.name: f"{s.name} = {s.formula}\n= {s.value:.4f}" for s in steps}
        for step in steps:
            for source, local in step.local:
                (x0, y0), (x1, y1) = PLACES[source], PLACES[step.name]
                axes.annotate(
                    "", (x1, y1), (x0, y0),
                    arrowprops={"arrowstyle": "-|>", "color": "0.5", "shrinkA": 34, "shrinkB": 40},
                )  # fmt: skip
                axes.text(
                    0.52 * x0 + 0.48 * x1, 0.52 * y0 + 0.48 * y1, f"∂{step.name}/∂{source} = {local:.3f}",
                    fontsize=8.5, ha="center", va="center", color="tab:blue",
                    bbox={"fc": "white", "ec": "none", "pad": 1.5},
                )  # fmt: skip
        for name, (x, y) in PLACES.items():
            face = "#fff4d6" if name in LEAVES else "#eef2f7"
            axes.text(x, y, labels[name], ha="center", va="center", fontsize=10,
                      bbox={"boxstyle": "round,pad=0.4", "fc": face, "ec": "0.4"})  # fmt: skip
            beside = 0.33 if name == "a" else -0.29 if name in LEAVES else -0.38
            axes.text(x, y + beside, f"dy/d{name} = {gradients[name]:.4f}", ha="center", va="center",
                      color="tab:red", fontsize=9.5)  # fmt: skip
        axes.set(xlim=(-0.8, 7.6), ylim=(-1.25, 2.1))
        axes.axis("off")
        axes.set_title("y = a tanh(a b + c): values (black), own derivatives ∂ (blue), dy/dv (red)")


def report(at, steps, gradients, walk):
    """Print the steps, the walk and the comparison."""
    print("Forward:\n")
    for s in steps:
        print(f"  {s.name} = {s.formula:<8} = {s.value:9.6f}")
    print("\nBackward, from dy/dy = 1 (v: the step, u: its input):\n")
    print("  step         u     dy/dv  *   ∂v/∂u  =  adds to dy/du")
    for step, source, upstream, local, part in walk:
        print(f"  {step.name} = {step.formula:<8} {source} {upstream:9.6f}  {local:9.6f}  {part:9.6f}")
    print("\na is used twice, so that two parts add up in dy/da.\n")
    print("            by hand       minigrad    differences")
    for name, ours, theirs in zip(LEAVES, by_minigrad(at), by_differences(at), strict=True):
        print(f"  dy/d{name} {gradients[name]:13.9f}  {ours:13.9f}  {theirs:13.9f}")


def main(argv=None):
    """Walk one graph by hand, compare, draw; returns 0."""
    parser = argparse.ArgumentParser(description="The chain rule on a graph of single numbers.")
    parser.add_argument(
        "--at", type=float, nargs=3, default=[0.8, 1.5, -0.7], metavar=tuple("ABC"), help="a, b and c"
    )
    parser.add_argument("--out", default="01_scalar_graph.png", help="where the picture goes")
    args = parser.parse_args(argv)
    steps = forward(*args.at)
    gradients, walk = backward(steps)
    report(args.at, steps, gradients, walk)
    draw(args.at, steps, gradients, args.out)
    print(f"\n{args.out}: the graph")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
