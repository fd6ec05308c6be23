"""A transposed convolution is what a convolution's backward does.

    python examples/05_transposed_convolution.py
    python examples/05_transposed_convolution.py --size 6 --kernel 3 --stride 2
    python examples/05_transposed_convolution.py --out checkerboard.png

A convolution is linear in its image: written as a matrix A, it takes the pixels of x in a row to those
of y = A x. Row q of A holds the kernel, at the pixels that output q looks at, and 0 elsewhere. If a loss
has the gradient dy with respect to y, then its gradient with respect to x is A^T dy: the chain rule, and
nothing more. A^T has the kernel down its columns: each pixel of dy lays the kernel, times its value, on
a larger image, `stride` pixels apart. That is the transposed convolution of generators. It is no inverse
of the convolution (A^T A is not the identity); what holds for all x and y is

    <A x, y> = <x, A^T y>.

Where the kernel's size is no multiple of the stride, some output pixels are reached by more taps than
their neighbours: a checkerboard, there before anything is learned. Kernel 4 and stride 2 reach every
pixel inside equally often. Source: Odena, Dumoulin and Olah, "Deconvolution and checkerboard artifacts"
(2016).
"""

import argparse

import numpy as np

import minigrad as mg
import minigrad.functional as F
from minigrad.figures import saved_figure


def matrix(kernel, size, stride):
    """A of a convolution of one channel without padding: (out * out, size * size).

    Args:
        kernel: (k, k).
        size: the image is size x size.
    """
    k = len(kernel)
    out = (size - k) // stride + 1
    a = np.zeros((out, out, size, size))
    for row, column in np.ndindex(out, out):
        top, left = row * stride, column * stride
        a[row, column, top : top + k, left : left + k] = kernel
    return a.reshape(out * out, size * size)


def laid(y, kernel, stride):
    """A^T y without A: every pixel of y lays the kernel on the result.

    Args:
        y: (h, w).
        kernel: (k, k).
    """
    k = len(kernel)
    made = np.zeros([(n - 1) * stride + k for n in y.shape])
    for row, column in np.ndindex(y.shape):
        top, left = row * stride, column * stride
        made[top : top + k, left : left + k] += y[row, column] * kernel
    return made


def counts(kernel, stride, inputs=5):
    """How often each pixel of a transposed convolution is reached: that of ones by a kernel of ones."""
    return laid(np.ones((inputs, inputs)), np.ones((kernel, kernel)), stride).astype(int)


def as_image(a):
    """(h, w) as a tensor (1, 1, h, w)."""
    return mg.tensor(a[None, None])


def forms(size, k, stride):
    """A, and A^T y made in four ways, with the two inner products."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(k, k))
    a = matrix(kernel, size, stride)
    side = round(len(a) ** 0.5)
    # What no step of the kernel reaches, at the lower and the right edge, is left out of x.
    reached = (side - 1) * stride + k
    x, y = np.zeros((size, size)), rng.normal(size=(side, side))
    x[:reached, :reached] = rng.normal(size=(reached, reached))
    image = mg.tensor(x[None, None], requires_grad=True)
    convolved = F.conv2d(image, as_image(kernel), stride=stride)
    (dx,) = mg.grad(convolved, image, as_image(y))
    transposed = F.conv_transpose2d(as_image(y), as_image(kernel), stride=stride)
    by_matrix = (a.T @ y.ravel()).reshape(size, size)
    made = {
        "A^T y, by the matrix": by_matrix[:reached, :reached],
        "each pixel lays the kernel": laid(y, kernel, stride),
        "F.conv_transpose2d": transposed.numpy()[0, 0],
        "the gradient of F.conv2d": dx.numpy()[0, 0][:reached, :reached],
    }
    products = (convolved.numpy().ravel() @ y.ravel(), x.ravel() @ by_matrix.ravel())
    return a, made, products


def draw(a, k, stride, path):
    """A and A^T, and how often each pixel is reached for kernels of 3 and 4 with stride 2."""
    with saved_figure(path, (12, 7.6), dpi=100) as figure:
        from matplotlib.ticker import MaxNLocator

        upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.25))
        left, right = upper.subplots(1, 2, width_ratios=(2, 1))
        most = np.abs(a).max()
        for axes, values, title in ((left, a, "A"), (right, a.T, "A$^T$")):
            shown = axes.imshow(values, cmap="RdBu", vmin=-most, vmax=most, aspect="auto")
            rows, columns = ("pixels of y", "pixels of x") if values is a else ("pixels of x", "pixels of y")
            axes.set(title=f"{title}: kernel {k} x {k}, stride {stride}", xlabel=columns, ylabel=rows)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(8, integer=True))
        upper.colorbar(shown, ax=[left, right], label="entry", shrink=0.8)
        for axes, kernel in zip(lower.subplots(1, 2), (3, 4), strict=True):
            reached = counts(kernel, 2)
            shown = axes.imshow(reached, cmap="viridis", vmin=1, vmax=4)
            for (row, column), n in np.ndenumerate(reached):
                axes.text(column, row, n, ha="center", va="center", fontsize=8,
                          color="black" if n > 2 else "white")  # fmt: skip
            axes.set(
                title=f"kernel {kernel}, stride 2: taps that reach each pixel",
                xlabel="column of the result", ylabel="row of the result",
            )  # fmt: skip
            lower.colorbar(shown, ax=axes, ticks=[1, 2, 3, 4], label="taps")


def report(a, made, products, k, stride):
    """Print the matrix' shape, the forms' agreement, and the counts along one row."""
    print(f"A of a {k} x {k} kernel with stride {stride}: {a.shape[0]} x {a.shape[1]}, ", end="")
    print(f"{np.count_nonzero(a)} entries that are not 0, {k * k} a row.\n")
    print("  <A x, y>   = {:.12f}\n  <x, A^T y> = {:.12f}\n".format(*products))
    first, *others = made.items()
    print(f"Largest difference from {first[0]}:\n")
    for name, value in others:
        print(f"  {name:<28} {np.abs(value - first[1]).max():.1e}")
    print("\nTaps that reach the pixels of one row of the result, inside:\n")
    for kernel in (3, 4):
        inside = counts(kernel, 2)[4:6, 3:-3]
        for i, row in enumerate(inside):
            head = f"kernel {kernel}, stride 2, row {4 + i}"
            print(f"  {head:<26} {' '.join(map(str, row))}")


def main(argv=None):
    """Compare the four forms, count, draw; returns 0."""
    parser = argparse.ArgumentParser(description="A transposed convolution is a backward.")
    parser.add_argument("--size", type=int, default=5, help="height and width of x (default: 5)")
    parser.add_argument("--kernel", type=int, default=3, help="height and width of w (default: 3)")
    parser.add_argument("--stride", type=int, default=2, help="the stride (default: 2)")
    parser.add_argument("--out", default="05_transposed_convolution.png", help="where the picture goes")
    args = parser.parse_args(argv)
    if not 1 <= args.kernel <= args.size <= 12 or args.stride < 1:
        parser.error("expected 1 <= kernel <= size <= 12 and a stride of at least 1")
    a, made, products = forms(args.size, args.kernel, args.stride)
    report(a, made, products, args.kernel, args.stride)
    draw(a, args.kernel, args.stride, args.out)
    print(f"\n{args.out}: A, its transpose, and the checkerboard")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
