"""Why a discriminator ends in a logit, not in a probability: float32 runs out of numbers below 1.

    python examples/09_why_logits.py
    python examples/09_why_logits.py --start 25 --lr 2
    python examples/09_why_logits.py --out saturation.png

Binary cross-entropy of a logit x with the label 0 is -log(1 - p), p = sigmoid(x): about x where x is
large, with the gradient p, about 1. Computed by way of p in float32, it breaks down:

- sigmoid(x) = 1 / (1 + exp(-x)), and in float32 1 + exp(-x) rounds to 1 once exp(-x) is 2^-24 or less:
  from x = 24 log 2 = 16.6 on, p is exactly 1. Some way before, 1 - p has only a few bits left.
- Then 1 - p is 0 and its logarithm minus infinity. The engine (like PyTorch) puts -100 in its place.
- And dp/dx = p (1 - p) is 0: whatever the loss says, nothing of it comes back. A discriminator that is
  sure of a wrong thing never learns better, and a generator before it gets no gradient at all.

With the label 1 and x far below 0, p is a small number, of which float32 has plenty, and all is well for
longer; but there the division by p has its floor, 1e-12, below which (x < -27.6) the gradient fades too.

Put together before anything is rounded, -t log p - (1 - t) log(1 - p) is

    max(x, 0) - x t + log(1 + exp(-|x|)),   with the gradient sigmoid(x) - t,

and no term of it overflows or cancels.
"""

import argparse
import math

import numpy as np

import minigrad as mg
import minigrad.functional as F
from minigrad.figures import saved_figure


def by_probability(x, t):
    """The loss by way of p = sigmoid(x)."""
    return F.binary_cross_entropy(F.sigmoid(x), t)


def by_logit(x, t):
    """The loss of the logit itself."""
    return F.binary_cross_entropy_with_logits(x, t)


FORMS = {"by probability": by_probability, "by logit": by_logit}


def loss_and_gradient(form, logit, label):
    """Of one logit, in float32, as Python numbers."""
    x = mg.tensor([[logit]], dtype="float32", requires_grad=True)  # (1, 1)
    loss = form(x, mg.tensor([[label]], dtype="float32"))
    loss.backward()
    return loss.item(), x.grad.item()


def truth(logit, label):
    """The same in float64, by the formula that cancels nowhere."""
    wrong = logit if label == 0 else -logit  # how far the logit is on the wrong side
    loss = max(wrong, 0) + math.log1p(math.exp(-abs(wrong)))
    slope = 1 / (1 + math.exp(-wrong))
    return loss, slope if label == 0 else -slope


def saturation():
    """The first x at which sigmoid(x) is 1 in float32, to three places."""
    low, high = 0.0, 40.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        p = F.sigmoid(mg.tensor([middle], dtype="float32")).item()
        low, high = (low, middle) if p == 1.0 else (middle, high)
    return high


def learn(form, start, lr, steps):
    """A logit that is sure of a wrong thing (label 0), and gradient descent: its way."""
    way = [start]
    for _ in range(steps):
        way.append(way[-1] - lr * loss_and_gradient(form, way[-1], 0.0)[1])
    return way


def draw(logits, ways, lr, path):
    """Loss and gradient over the logit for the label 0, and both ways down."""
    with saved_figure(path, (13, 4.2), dpi=100) as figure:
        panels = figure.subplots(1, 3)
        styles = {"by probability": ("tab:red", "-"), "by logit": ("tab:blue", "-")}
        exact = [truth(x, 0) for x in logits]
        for k, name in enumerate(("loss", "gradient")):
            panels[k].plot(logits, [e[k] for e in exact], color="0.75", lw=5, label="exact")
            for label, form in FORMS.items():
                values = [loss_and_gradient(form, x, 0.0)[k] for x in logits]
                panels[k].plot(logits, values, color=styles[label][0], label=label)
            panels[k].axvline(saturation(), color="0.4", ls=":", lw=1)
            panels[k].set(title=f"{name}, label 0, float32", xlabel="logit x", ylabel=name)
        for label, way in ways.items():
            panels[2].plot(way, color=styles[label][0], label=label)
        panels[2].set(title=f"gradient descent from {ways['by logit'][0]:g}, rate {lr:g}", xlabel="step",
                      ylabel="logit x (to be made negative)")  # fmt: skip
        for axes in panels:
            axes.grid(alpha=0.3)
            axes.legend()


def report(ways):
    """Print loss and gradient at some logits, and where both ways end."""
    print(f"In float32 sigmoid(x) is 1 from x = {saturation():.2f} on.\n")
    for label, logits in ((0.0, (2, 10, 15, 16.5, 18, 30)), (1.0, (-2, -10, -18, -27, -30, -40))):
        print(f"label {label:g}           loss: exact, by probability, by logit   gradient: the same")
        for x in logits:
            columns = [truth(x, label), *(loss_and_gradient(form, x, label) for form in FORMS.values())]
            losses = " ".join(f"{c[0]:11.5f}" for c in columns)
            print(f"  x = {x:5g}   {losses}   {' '.join(f'{c[1]:10.6f}' for c in columns)}")
        print()
    for name, way in ways.items():
        print(f"  {name:<15} from x = {way[0]:g}, after {len(way) - 1} steps: x = {way[-1]:.3f}")


def main(argv=None):
    """Tabulate, descend, draw; returns 0."""
    parser = argparse.ArgumentParser(description="Binary cross-entropy by probabilities and by logits.")
    parser.add_argument("--start", type=float, default=20.0, help="logit to descend from (default: 20)")
    parser.add_argument("--lr", type=float, default=1.0, help="rate of the descent (default: 1)")
    parser.add_argument("--steps", type=int, default=60, help="steps of the descent (default: 60)")
    parser.add_argument("--points", type=int, default=301, help="points of each curve (default: 301)")
    parser.add_argument("--out", default="09_why_logits.png", help="where the picture goes")
    args = parser.parse_args(argv)
    if args.points < 2 or args.steps < 1:
        parser.error("expected at least 2 --points and 1 of --steps")
    ways = {name: learn(form, args.start, args.lr, args.steps) for name, form in FORMS.items()}
    report(ways)
    draw(np.linspace(-5, 25, args.points).tolist(), ways, args.lr, args.out)
    print(f"\n{args.out}: loss and gradient over the logit, and the two descents")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
