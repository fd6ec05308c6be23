"""One neuron learns a line, by gradients written by hand and by minigrad.

    python examples/02_neuron.py
    python examples/02_neuron.py --steps 20 --lr 1
    python examples/02_neuron.py --out line.png

Two clouds of points, labels t = 0 and 1. The neuron gives each point a logit z = x . w + b; its line is
where z = 0, and p = sigmoid(z) is how likely it finds the label 1. The loss is the mean of

    -t log p - (1 - t) log(1 - p).

Its derivative with respect to z is (p - t) / N: the error itself, since p (1 - p), the slope of the
sigmoid, cancels against the slopes of the logarithms. So

    dw = x^T (p - t) / N,   db = sum of (p - t) / N.
"""

import argparse

import numpy as np

import minigrad as mg
import minigrad.functional as F
from minigrad import nn, optim
from minigrad.figures import saved_figure

START = (np.array([-0.5, 1.0]), 1.5)  # w and b: a line that is wrong


def clouds(count, rng):
    """Points (2 * count, 2) and their labels (2 * count,): two clouds that overlap a little."""
    points = rng.normal(size=(2, count, 2)) * [1.0, 0.8] + [[[-1.2, -0.6]], [[1.2, 0.9]]]
    return points.reshape(-1, 2), np.repeat([0.0, 1.0], count)


def loss_and_gradients(w, b, x, t):
    """By hand: the loss, dw (2,) and db."""
    z = x @ w + b  # (N,)
    p = 1 / (1 + np.exp(-z))
    # -t log p - (1 - t) log(1 - p), put so that nothing overflows: see 09_why_logits.py.
    loss = (np.maximum(z, 0) - z * t + np.log1p(np.exp(-np.abs(z)))).mean()
    dz = (p - t) / len(x)
    return loss, x.T @ dz, dz.sum()


def learn_by_hand(x, t, lr, steps):
    """Gradient descent: the rows (w1, w2, b, loss) before each step, and the last."""
    (w, b), rows = START, []
    for _ in range(steps):
        loss, dw, db = loss_and_gradients(w, b, x, t)
        rows.append((*w, b, loss))
        w, b = w - lr * dw, b - lr * db
    return np.array([*rows, (*w, b, loss_and_gradients(w, b, x, t)[0])])


def learn_by_minigrad(x, t, lr, steps):
    """The same rows, from a Dense layer, a loss and SGD."""
    neuron = nn.Dense(2, 1, dtype="float64")
    neuron.weight.data, neuron.bias.data = START[0].reshape(1, 2).copy(), np.array([START[1]])
    optimizer = optim.SGD(neuron.parameters(), lr)
    points, labels, rows = mg.tensor(x), mg.tensor(t[:, None]), []
    for step in range(steps + 1):
        loss = F.binary_cross_entropy_with_logits(neuron(points), labels)
        rows.append((*neuron.weight.numpy()[0], neuron.bias.item(), loss.item()))
        if step < steps:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return np.array(rows)


def right(row, x, t):
    """The share of points on their side of the line."""
    return float(((x @ row[:2] + row[2] > 0) == (t > 0.5)).mean())


def draw(x, t, rows, path):
    """The points with the line as it turns, and the loss."""
    with saved_figure(path, (11, 4.6)) as figure:
        left, beside = figure.subplots(1, 2)
        for label, color, marker in ((0, "tab:blue", "o"), (1, "tab:red", "^")):
            left.plot(*x[t == label].T, marker, color=color, ms=4, alpha=0.6, label=f"label {label}")
        stops = sorted({0, *np.geomspace(1, len(rows) - 1, 5).astype(int).tolist()})
        across = np.array([-5.0, 5.0])
        for i, step in enumerate(stops):
            w1, w2, b, _ = rows[step]
            shade = 0.8 * (1 - i / (len(stops) - 1))
            # w1 x + w2 y + b = 0; w2 stays well away from 0 here.
            left.plot(across, -(w1 * across + b) / w2, color=str(shade), lw=1.8, label=f"line, step {step}")
        left.set(title="z = 0, as it is learned", xlabel="x", ylabel="y", xlim=(-5, 5), ylim=(-4, 4))
        figure.legend(loc="outside lower center", ncols=8, fontsize=8.5)
        beside.plot(rows[:, 3], color="tab:green")
        beside.set(title="loss", xlabel="step", ylabel="mean cross-entropy (nats)", ylim=(0, None))
        beside.grid(alpha=0.3)


def main(argv=None):
    """Learn twice, compare, draw; returns 0."""
    parser = argparse.ArgumentParser(description="One neuron learns a line.")
    parser.add_argument("--points", type=int, default=100, help="points of each cloud (default: 100)")
    parser.add_argument("--steps", type=int, default=100, help="steps of descent (default: 100)")
    parser.add_argument("--lr", type=float, default=0.5, help="rate of the descent (default: 0.5)")
    parser.add_argument("--out", default="02_neuron.png", help="where the picture goes")
    args = parser.parse_args(argv)
    if args.points < 1 or args.steps < 1:
        parser.error("expected --points and --steps of at least 1")
    x, t = clouds(args.points, np.random.default_rng(0))
    by_hand = learn_by_hand(x, t, args.lr, args.steps)
    by_minigrad = learn_by_minigrad(x, t, args.lr, args.steps)

    print("   step        w1        w2         b      loss    right")
    for step in sorted({0, *np.geomspace(1, args.steps, 7).astype(int).tolist()}):
        w1, w2, b, loss = by_hand[step]
        share = right(by_hand[step], x, t)
        print(f"  {step:5d}  {w1:8.4f}  {w2:8.4f}  {b:8.4f}  {loss:8.5f}  {share:7.1%}")
    difference = np.abs(by_hand - by_minigrad).max()
    print(f"\nLargest difference of any of these from minigrad's, over all steps: {difference:.1e}")
    draw(x, t, by_hand, args.out)
    print(f"\n{args.out}: the line as it turns, and the loss")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
