"""BatchNorm's three gradients, written out, and what two forgotten terms do.

    python examples/06_batch_norm.py
    python examples/06_batch_norm.py --batch 4 --channels 2
    python examples/06_batch_norm.py --out terms.png

Forward, for each channel by itself, over its m = N H W values:

    u = mean of x,   v = mean of (x - u)^2,   s = 1 / sqrt(v + eps)
    n = (x - u) s,   y = weight n + bias

Backward, from dy, the gradient of y:

    dbias   = sum of dy              bias is added to every value
    dweight = sum of dy n            weight scales every value
    dn      = dy weight
    dx      = s (dn - mean(dn) - n mean(dn n))

The plain s dn would be all if u and s were constants. They are not: every x moves them, and with them
every other value of its channel.

- u: raising one x by h raises u by h / m, which lowers all n by s h / m. Each of them counts dn_j: in
  all that is -s mean(dn), times h.
- s: raising x_i by h changes v by 2 (x_i - u) h / m, so s by -s^3 (x_i - u) h / m = -s^2 n_i h / m, and
  every n_j = (x_j - u) s by -s n_i n_j h / m. In all, likewise, -s n_i mean(dn n), times h.

So dx has neither a part along the ones nor one along n: adding a constant to a channel, or scaling it,
changes nothing after BatchNorm (but for eps), and the gradient knows that.
"""

import argparse

import numpy as np

import minigrad as mg
import minigrad.functional as F
from minigrad.figures import saved_figure

AXES = (0, 2, 3)  # what is summed over: all but the channels
EPS = 1e-5
STEP = 1e-5


def per_channel(a):
    """(C,) as (1, C, 1, 1), to stand beside (N, C, H, W)."""
    return a[None, :, None, None]


def forward(x, weight, bias):
    """y, and what backward reads again: n and s."""
    u = x.mean(AXES)  # (C,)
    v = ((x - per_channel(u)) ** 2).mean(AXES)  # (C,)
    s = 1 / np.sqrt(v + EPS)  # (C,)
    n = (x - per_channel(u)) * per_channel(s)  # (N, C, H, W)
    return n * per_channel(weight) + per_channel(bias), n, s


def backward(dy, n, s, weight, mean_terms=True):
    """dx (N, C, H, W), dweight (C,), dbias (C,); without `mean_terms` dx takes u and s for constants."""
    dn = dy * per_channel(weight)
    dx = dn
    if mean_terms:
        dx = dn - per_channel(dn.mean(AXES)) - n * per_channel((dn * n).mean(AXES))
    return dx * per_channel(s), (dy * n).sum(AXES), dy.sum(AXES)


def by_minigrad(x, weight, bias, dy):
    """The same three from the engine."""
    tensors = [mg.tensor(a, requires_grad=True) for a in (x, weight, bias)]
    y = F.batch_norm(tensors[0], None, None, *tensors[1:], training=True, eps=EPS)
    return [g.numpy() for g in mg.grad(y, tensors, mg.tensor(dy))]


def by_differences(x, weight, bias, dy):
    """The same three from values alone: of the sum of dy y, element by element."""
    arrays, gradients = [x, weight, bias], []
    for k, array in enumerate(arrays):
        gradient = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            sides = []
            for h in (STEP, -STEP):
                moved = [a.copy() for a in arrays]
                moved[k][index] += h
                sides.append((forward(*moved)[0] * dy).sum())
            gradient[index] = (sides[0] - sides[1]) / (2 * STEP)
        gradients.append(gradient)
    return gradients


def error(a, b):
    """The largest difference, relative to the largest number of b."""
    return float(np.abs(a - b).max() / np.abs(b).max())


def measure(batch, channels, size=3):
    """All four forms on random numbers, as a dict of arrays and errors."""
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 3.0, (batch, channels, size, size))
    # A dy that knows x, as a loss's does: it asks each channel to grow and to spread.
    dy = rng.normal(size=x.shape) + 0.5 + 0.2 * x
    weight, bias = rng.normal(1.0, 0.3, channels), rng.normal(size=channels)
    _, n, s = forward(x, weight, bias)
    right = backward(dy, n, s, weight)
    return {
        "n": n,
        "right": right,
        "wrong_dx": backward(dy, n, s, weight, mean_terms=False)[0],
        "minigrad": by_minigrad(x, weight, bias, dy),
        "differences": by_differences(x, weight, bias, dy),
    }


def descend(mean_terms, steps=40, lr=3.0):
    """Move x itself along dx for a loss that is least at y = t; returns the loss at every step."""
    rng = np.random.default_rng(1)
    x = rng.normal(2.0, 3.0, (8, 1, 3, 3))
    t = 0.5 * rng.normal(size=x.shape) - 1.0  # other mean and spread than y can have: weight 1, bias 0
    weight, bias = np.ones(1), np.zeros(1)
    losses = []
    for _ in range(steps):
        y, n, s = forward(x, weight, bias)
        losses.append(0.5 * ((y - t) ** 2).mean())
        x = x - lr * backward((y - t), n, s, weight, mean_terms)[0]
    return losses


def draw(found, path):
    """Left: dx with and without the mean terms, against differences. Right: where they lead."""
    with saved_figure(path, (10.5, 4.4)) as figure:
        left, right = figure.subplots(1, 2)
        true = found["differences"][0].ravel()
        left.axline((0, 0), slope=1, color="0.7", lw=1)
        left.plot(true, found["wrong_dx"].ravel(), "x", color="tab:red", ms=5, label="s dn alone")
        left.plot(true, found["right"][0].ravel(), ".", color="tab:blue", ms=7, label="with both mean terms")
        left.set(title="dx, element by element", xlabel="by differences", ylabel="by the formula")
        left.legend()
        right.plot(descend(False), color="tab:red", label="s dn alone")
        right.plot(descend(True), color="tab:blue", label="with both mean terms")
        right.set(title="Moving x along -dx", xlabel="step", ylabel="loss: half the mean square of y - t")
        right.set_ylim(bottom=0)
        right.legend()


def report(found):
    """Print how well the forms agree, and what is wrong with the short dx."""
    print("Largest difference from central differences, relative:\n")
    print("                 by hand    minigrad")
    for i, name in enumerate(("dx", "dweight", "dbias")):
        hand, engine = (error(found[form][i], found["differences"][i]) for form in ("right", "minigrad"))
        print(f"  {name:<12} {hand:9.1e}   {engine:9.1e}")
    print(f"  {'s dn alone':<12} {error(found['wrong_dx'], found['differences'][0]):9.1e}\n")
    print("A channel's dx must not push along the ones (a constant added), nor along n (a scale):\n")
    print("  channel   sum of dx: right   s dn alone   sum of dx n: right   s dn alone")
    pairs = zip(
        *(dx.sum(AXES) for dx in (found["right"][0], found["wrong_dx"])),
        *((dx * found["n"]).sum(AXES) for dx in (found["right"][0], found["wrong_dx"])),
        strict=True,
    )
    for c, (a, b, d, e) in enumerate(pairs):
        print(f"  {c:<7}   {a:16.1e}   {b:10.3f}   {d:18.1e}   {e:10.3f}")


def main(argv=None):
    """Compare the gradients, show the mistake, draw; returns 0."""
    parser = argparse.ArgumentParser(description="BatchNorm's three gradients, written out.")
    parser.add_argument("--batch", type=int, default=8, help="images (default: 8)")
    parser.add_argument("--channels", type=int, default=3, help="channels (default: 3)")
    parser.add_argument("--out", default="06_batch_norm.png", help="where the picture goes")
    args = parser.parse_args(argv)
    if args.batch < 1 or args.channels < 1:
        parser.error("expected --batch and --channels of at least 1")
    found = measure(args.batch, args.channels)
    report(found)
    print("\nMoving x along -dx, 40 steps, the loss at the first and at the last:\n")
    for label, terms in (("both mean terms", True), ("s dn alone", False)):
        losses = descend(terms)
        print(f"  {label:<16} {losses[0]:.4f} -> {losses[-1]:.4f}")
    draw(found, args.out)
    print(f"\n{args.out}: dx against differences, and where each dx leads")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
