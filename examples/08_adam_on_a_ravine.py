"""Four optimisers on two valleys, and what Adam's bias correction corrects.

    python examples/08_adam_on_a_ravine.py
    python examples/08_adam_on_a_ravine.py --steps 500
    python examples/08_adam_on_a_ravine.py --out paths.png

    ravine       (x^2 + 50 y^2) / 2               50 times as steep across as along
    Rosenbrock   (1 - x)^2 + 100 (y - x^2)^2      a bent valley; its floor is nearly flat

Gradient descent is held by the steep direction: beyond a rate of 2 / 50 it diverges on the ravine, and
at that rate hardly moves along it. Momentum adds up what successive gradients agree on and lets what
alternates cancel. RMSprop divides each coordinate by the running size of its own gradients, so that both
directions advance at about the same speed; at a fixed rate it ends in a small jitter about the
minimum. Adam does both.

Every optimiser has a rate that suits it, found by trying some for 200 steps. So the paths say how
methods move; which one wins changes with the valley and the rates.
"""

import argparse
from dataclasses import dataclass

import numpy as np

import minigrad as mg
from minigrad import optim
from minigrad.figures import saved_figure

BETAS = (0.9, 0.999)


def ravine(p):
    """Of a tensor (or array) p = (x, y)."""
    return (p[0] * p[0] + 50.0 * p[1] * p[1]) * 0.5


def rosenbrock(p):
    """Of a tensor (or array) p = (x, y)."""
    along, across = 1.0 - p[0], p[1] - p[0] * p[0]
    return along * along + 100.0 * across * across


@dataclass(frozen=True)
class Valley:
    """A function, where to start, its minimum, a window (x0, x1, y0, y1), and a rate for each method."""

    function: object
    start: tuple[float, float]
    minimum: tuple[float, float]
    window: tuple[float, float, float, float]
    rates: tuple[float, float, float, float]


VALLEYS = {
    "ravine": Valley(ravine, (-4.0, 1.0), (0.0, 0.0), (-4.6, 1.6, -1.3, 1.3), (0.038, 0.02, 0.024, 0.3)),
    "Rosenbrock": Valley(
        rosenbrock, (-1.2, 1.0), (1.0, 1.0), (-1.7, 1.5, -0.6, 1.9), (0.002, 0.0015, 0.03, 0.3)
    ),
}
METHODS = {
    "gradient descent": (lambda p, lr: optim.SGD(p, lr), "tab:gray"),
    "momentum 0.9": (lambda p, lr: optim.SGD(p, lr, momentum=0.9), "tab:green"),
    "RMSprop": (lambda p, lr: optim.RMSprop(p, lr, alpha=0.9), "tab:orange"),
    "Adam": (lambda p, lr: optim.Adam(p, lr, betas=BETAS), "tab:red"),
}


def descend(valley, make, lr, steps):
    """The path (steps + 1, 2) and the values on it (steps + 1,)."""
    p = mg.tensor(valley.start, dtype="float64", requires_grad=True)
    optimizer = make([p], lr)
    path, values = [p.numpy().copy()], []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = valley.function(p)
        loss.backward()
        values.append(loss.item())
        optimizer.step()
        path.append(p.numpy().copy())
    values.append(float(valley.function(path[-1])))
    return np.array(path), np.array(values)


def first_steps(gradients, lr=1.0):
    """Adam on given gradients, by hand: rows (t, g, m, v, m and v corrected, step, uncorrected)."""
    (b1, b2), m, v, rows = BETAS, 0.0, 0.0, []
    for t, g in enumerate(gradients, 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        mean, square = m / (1 - b1**t), v / (1 - b2**t)
        rows.append((t, g, m, v, mean, square, lr * mean / square**0.5, lr * m / v**0.5))
    return rows


def draw(found, path):
    """Paths on contours above, values over steps below."""
    with saved_figure(path, (12.5, 8), dpi=100) as figure:
        panels = figure.subplots(2, 2, height_ratios=(1.3, 1))
        for column, (name, valley) in enumerate(VALLEYS.items()):
            above, below = panels[0, column], panels[1, column]
            x0, x1, y0, y1 = valley.window
            x, y = np.meshgrid(np.linspace(x0, x1, 200), np.linspace(y0, y1, 200))
            levels = np.geomspace(0.05, 100 if name == "ravine" else 1000, 14)
            above.contour(x, y, valley.function((x, y)), levels=levels, cmap="Blues_r", linewidths=0.7)
            for method, (way, values) in found[name].items():
                color = METHODS[method][1]
                above.plot(*way.T, ".-", color=color, ms=3, lw=1, label=method, alpha=0.85)
                below.semilogy(np.maximum(values, 1e-16), color=color, label=method)
            above.plot(*valley.start, "ko", ms=6)
            above.plot(*valley.minimum, "k*", ms=12)
            above.set(title=f"{name}: from the dot to the star", xlabel="x", ylabel="y",
                      xlim=(x0, x1), ylim=(y0, y1))  # fmt: skip
            below.set(title=f"{name}: value (the minimum is 0)", xlabel="step", ylabel="value")
            below.grid(alpha=0.3)
        panels[1, 0].legend(loc="lower left", fontsize=9)


def report(found):
    """Print where each path ends, and Adam's first steps."""
    for name, valley in VALLEYS.items():
        rates = dict(zip(METHODS, valley.rates, strict=True))
        print(f"{name}:\n\n  method              rate   value at the end   distance to the minimum")
        for method, (way, values) in found[name].items():
            distance = np.linalg.norm(way[-1] - valley.minimum)
            print(f"  {method:<17} {rates[method]:6g}   {values[-1]:16.2e}   {distance:.2e}")
        print()
    print("Adam's first steps at rate 1, where the gradient is always 0.5 (m and v start at 0):\n")
    print("  t      m          v       m / (1 - b1^t)  v / (1 - b2^t)    step   without correction")
    for t, _, m, v, mean, square, step, plain in first_steps([0.5] * 5):
        print(f"  {t}  {m:.5f}  {v:.8f}  {mean:13.5f}  {square:14.5f}  {step:9.4f}  {plain:12.4f}")
    print("\nEach step should be 1, and is. Uncorrected, v is too small by a factor of 1000 and m only")
    print("by 10 at t = 1, so that the first step is 0.1 / sqrt(0.001) = 3.16 times too long.")


def main(argv=None):
    """Descend, tabulate, draw; returns 0."""
    parser = argparse.ArgumentParser(description="Four optimisers on two valleys.")
    parser.add_argument("--steps", type=int, default=200, help="steps of each (default: 200)")
    parser.add_argument("--out", default="08_adam_on_a_ravine.png", help="where the picture goes")
    args = parser.parse_args(argv)
    if args.steps < 1:
        parser.error(f"--steps: expected at least 1, got {args.steps}")
    found = {
        name: {
            method: descend(valley, make, lr, args.steps)
            for (method, (make, _)), lr in zip(METHODS.items(), valley.rates, strict=True)
        }
        for name, valley in VALLEYS.items()
    }
    report(found)
    draw(found, args.out)
    print(f"\n{args.out}: the paths, and the values along them")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
