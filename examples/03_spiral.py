"""A small network winds its decision around two spirals.

    python examples/03_spiral.py
    python examples/03_spiral.py --steps 100 --hidden 16
    python examples/03_spiral.py --out spiral.png

Two arms of points, one label each, which no straight line separates. Two hidden layers of tanh bend the
plane until one does: the last layer is a single neuron, as in 02_neuron.py. The network learns from
half of the points; the other half, which it never sees, tell whether it found the arms or the points.
"""

import argparse

import numpy as np

import minigrad as mg
import minigrad.functional as F
from minigrad import nn, optim
from minigrad.figures import saved_figure

TURNS = 1.75
REACH = 1.25  # half the width of the window that is drawn


def spirals(count, rng, noise=0.025):
    """Points (2 * count, 2) on two arms, half a turn apart, and labels (2 * count, 1), 0 and 1."""
    radius = np.sqrt(rng.uniform(0.02, 1, (2, count)))  # as many on every piece of an arm, by its length
    angle = 2 * np.pi * TURNS * radius + np.array([[0.0], [np.pi]])
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)  # (2, count, 2)
    points += noise * rng.normal(size=points.shape)
    labels = np.repeat([0.0, 1.0], count)[:, None]
    return points.reshape(-1, 2).astype(np.float32), labels.astype(np.float32)


def network(hidden):
    """Points (N, 2) to logits (N, 1)."""
    return nn.Sequential(
        nn.Dense(2, hidden), nn.Tanh(), nn.Dense(hidden, hidden), nn.Tanh(), nn.Dense(hidden, 1)
    )


def accuracy(model, points, labels):
    """The share of points on the right side."""
    with mg.no_grad():
        logits = model(mg.tensor(points)).numpy()
    return float(((logits > 0) == (labels > 0.5)).mean())


def region(model, side):
    """The probability of label 1 on a grid of side x side points of the window."""
    ticks = np.linspace(-REACH, REACH, side, dtype=np.float32)
    grid = np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2)  # (side * side, 2)
    with mg.no_grad():
        return F.sigmoid(model(mg.tensor(grid))).numpy().reshape(side, side)


def train(steps, hidden, count=200, shown=4, side=120):
    """Train on one half; gives the points, the curves and `shown` pictures of the plane."""
    mg.manual_seed(0)
    rng = np.random.default_rng(0)
    (points, labels), held = spirals(count, rng), spirals(count, rng)
    model = network(hidden)
    optimizer = optim.Adam(model.parameters(), lr=0.02)
    x, t = mg.tensor(points), mg.tensor(labels)
    stops = {round(s) for s in np.geomspace(max(1, steps // 30), steps, shown)}
    losses, regions = [], {}
    for step in range(1, steps + 1):
        loss = F.binary_cross_entropy_with_logits(model(x), t)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step in stops:
            scores = accuracy(model, points, labels), accuracy(model, *held)
            regions[step] = (region(model, side), *scores)
    return {"points": points, "labels": labels[:, 0], "losses": losses, "regions": regions}


def draw(found, path):
    """The plane at some steps, and the loss."""
    pictures = found["regions"]
    with saved_figure(path, (3.3 * len(pictures), 6.8), dpi=100) as figure:
        above, below = figure.subfigures(2, 1, height_ratios=(1.75, 1))
        panels = above.subplots(1, len(pictures), squeeze=False, sharey=True)[0]
        extent = (-REACH, REACH, -REACH, REACH)
        colors = {"cmap": "RdBu_r", "vmin": 0, "vmax": 1, "alpha": 0.75}
        for axes, (step, (plane, _, held)) in zip(panels, pictures.items(), strict=True):
            shown = axes.imshow(plane, origin="lower", extent=extent, **colors)
            axes.contour(plane, [0.5], origin="lower", extent=extent, colors="k", linewidths=1)
            for label, color in ((0, "navy"), (1, "darkred")):
                axes.plot(*found["points"][found["labels"] == label].T, ".", color=color, ms=2.5)
            axes.set(title=f"step {step}:\n{held:.0%} of unseen points right", xlabel="x")
        panels[0].set_ylabel("y")
        above.colorbar(shown, ax=panels.tolist(), label="probability of label 1", shrink=0.8)
        axes = below.subplots()
        axes.semilogy(range(1, len(found["losses"]) + 1), found["losses"], color="tab:blue")
        axes.axhline(np.log(2), color="0.5", ls=":", label="log 2: a coin")
        axes.set(title="loss on the points it learns from", xlabel="step", ylabel="cross-entropy (nats)")
        axes.grid(alpha=0.3)
        axes.legend()


def main(argv=None):
    """Train, tabulate, draw; returns 0."""
    parser = argparse.ArgumentParser(description="A small network on two spirals.")
    parser.add_argument("--steps", type=int, default=600, help="steps of Adam (default: 600)")
    parser.add_argument("--hidden", type=int, default=32, help="neurons in a hidden layer (default: 32)")
    parser.add_argument("--out", default="03_spiral.png", help="where the picture goes")
    args = parser.parse_args(argv)
    if args.steps < 1 or args.hidden < 1:
        parser.error("expected --steps and --hidden of at least 1")
    found = train(args.steps, args.hidden)
    print("   step     loss   right: of those learned from   of those never seen")
    for step, (_, learned, held) in found["regions"].items():
        print(f"  {step:5d}  {found['losses'][step - 1]:7.4f}   {learned:27.1%}   {held:19.1%}")
    draw(found, args.out)
    print(f"\n{args.out}: the plane as the network sees it, and the loss")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
