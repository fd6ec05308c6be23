"""An operation of your own, checked, and a mistake in it, caught.

    python examples/10_own_operation.py
    python examples/10_own_operation.py --beta 2
    python examples/10_own_operation.py --mistake 1.001      # one part in a thousand too much
    python examples/10_own_operation.py --out swish.png

    swish(x) = x s(beta x),   s the sigmoid        (Ramachandran, Zoph and Le, 2017)

Its derivative, from the product rule and s' = s (1 - s):

    s + beta x s (1 - s)

An operation (minigrad/ops/operation.py) is a class with a `forward` on arrays and a `backward` on
tensors. Since `backward` is itself written in operations, the gradient has a gradient, and the check
covers both orders. Its `cases` are what

    python -m minigrad.gradcheck --module examples/10_own_operation.py

runs; `main` makes the same check by itself, and then again with a factor that does not belong there.
"""

import argparse
from dataclasses import dataclass

import numpy as np

import minigrad as mg
import minigrad.functional as F
from minigrad import Operation
from minigrad.figures import saved_figure
from minigrad.ops import Case


@dataclass(eq=False)  # the parameters of an operation are the fields of a dataclass
class Swish(Operation):
    """y = x s, s = sigmoid(beta x): dx = dy (s + beta x s (1 - s))."""

    beta: float = 1.0
    keep_inputs = True  # backward reads them

    def forward(self, x):
        # The backend's own sigmoid: it does not overflow, and runs where x lives.
        return x * self.backend.sigmoid(self.beta * x)

    def backward(self, dy):
        (x,) = self.inputs
        s = F.sigmoid(self.beta * x)
        return (dy * (s + self.beta * x * s * (1.0 - s)),)

    @classmethod
    def cases(cls):
        yield Case(
            lambda x: cls(1.5)(x),
            lambda rng: (rng.normal(size=(3, 4)),),
            reference=lambda x: x / (1 + np.exp(-1.5 * x)),
        )


def swish(x, beta=1.0):
    """The operation as a function."""
    return Swish(beta)(x)


def with_mistake(beta, factor):
    """swish with right values, and a gradient `factor` times too large in the second half of x."""

    class WrongSwish(Swish):  # made only when asked for: a class of the module would be checked with it
        def backward(self, dy):
            (dx,) = super().backward(dy)
            factors = np.ones(dx.shape)
            factors[len(factors) // 2 :] = factor
            return (dx * mg.tensor(factors),)

    return lambda x: WrongSwish(beta)(x)


def check(function, order):
    """What the gradient check says: "" where all is well, else its words."""
    x = mg.tensor(np.random.default_rng(0).normal(size=(4, 3)), requires_grad=True)
    try:
        mg.gradcheck(function, [x], order=order)
    except mg.GradcheckError as error:
        return str(error)
    return ""


def curves(beta, places):
    """swish, its first and its second derivative at these places, by the engine."""
    x = mg.tensor(places, requires_grad=True)
    y = swish(x, beta)
    (first,) = mg.grad(y.sum(), x, create_graph=True)
    (second,) = mg.grad(first.sum(), x)
    return y.numpy(), first.numpy(), second.numpy()


def draw(beta, path):
    """The function with both derivatives, over differences of its values."""
    h = 1e-3
    places = np.linspace(-6, 6, 241)
    low, middle, high = (curves(beta, places + d)[0] for d in (-h, 0, h))
    differences = (middle, (high - low) / (2 * h), (high - 2 * middle + low) / h**2)
    with saved_figure(path, (12, 3.9), dpi=100) as figure:
        names = ("swish(x)", "first derivative", "second derivative")
        for axes, name, ours, theirs in zip(
            figure.subplots(1, 3), names, curves(beta, places), differences, strict=True
        ):
            label = "forward" if name == names[0] else "differences"
            axes.plot(places, theirs, color="0.75", lw=5, label=label)
            axes.plot(places, ours, color="tab:blue", label="minigrad")
            axes.axhline(0, color="0.5", lw=0.7)
            axes.set(title=f"{name}, beta = {beta:g}", xlabel="x", ylabel=name)
            axes.grid(alpha=0.3)
            axes.legend()


def main(argv=None):
    """Check the operation, plant a mistake, draw; returns 0 where the check did its work, else 1."""
    parser = argparse.ArgumentParser(description="An operation of your own, checked.")
    parser.add_argument("--beta", type=float, default=1.0, help="steepness (default: 1)")
    parser.add_argument("--mistake", type=float, default=1.01, help="the planted factor (default: 1.01)")
    parser.add_argument("--out", default="10_own_operation.png", help="where the picture goes")
    args = parser.parse_args(argv)
    places = np.array([-2.0, 0.0, 2.0])
    print("    x      swish    first   second derivative")
    for row in zip(places, *curves(args.beta, places), strict=True):
        print("  {:3g}   {:8.5f} {:8.5f}   {:8.5f}".format(*row))

    print("\nGradients against differences, in float64:\n")
    fine = True
    for order in (1, 2):
        said = check(lambda x: swish(x, args.beta), order)
        fine = fine and not said
        print(f"  order {order}: {said or 'agree'}")
    said = check(with_mistake(args.beta, args.mistake), 1)
    print(f"\nWith a factor of {args.mistake:g} in half of the gradient:\n\n  {said or 'not noticed'}")
    draw(args.beta, args.out)
    print(f"\n{args.out}: the function and its derivatives")
    return 0 if fine and (said or args.mistake == 1) else 1


if __name__ == "__main__":
    raise SystemExit(main())
