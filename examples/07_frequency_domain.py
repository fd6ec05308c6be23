"""A convolution in the frequency domain: the circle it needs, and the multiplications it saves.

    python examples/07_frequency_domain.py
    python examples/07_frequency_domain.py --size 14 --kernel 7
    python examples/07_frequency_domain.py --out circle.png

On a circle of P pixels (pixel P is pixel 0 again) a convolution multiplies frequency by frequency: the
transform of the result is that of the image times that of the kernel (here its conjugate, since
networks slide the kernel without turning it round). Images do not lie on circles; zeros between the
end and the beginning keep apart what must not meet.

How many? To get the whole result, its tails included, the circle must hold size + kernel - 1 pixels: 11
for 5 x 5 on 7 x 7. But with padding 2 only 7 of the 11 are kept, and what wraps around onto the others
does no harm. On a circle of 9 all that wraps lands on the two pixels that are thrown away. On one of 8
some of it reaches a pixel that is kept.

What that saves, for each pair of an image's channel and a made one: plain, every pixel of the result
takes 5 x 5 multiplications, 49 x 25 = 1225. In the frequency domain of 9 x 9 = 81 numbers there is 1
real frequency and, since opposite ones are conjugates, 40 complex ones, at 3 multiplications each (Gauss
found out how to do without the fourth): 121. The transforms come on top, but once for each channel, not
for each pair (minigrad/backend/cpu/frequency.py).
"""

import argparse

import numpy as np

import minigrad as mg
import minigrad.functional as F
from minigrad.figures import saved_figure


def on_a_circle(x, w, period, padding):
    """The convolution of x (H, W) and w (k, k) by transforms of period x period; (H', W') are kept.

    The inverse transform has at pixel q the sum over i of x[q + i], modulo the period. Padding
    moves the first pixel that is kept to -padding, which on the circle is period - padding.
    """
    transform = np.fft.fft2(x, (period, period)) * np.conj(np.fft.fft2(w, (period, period)))
    circle = np.fft.ifft2(transform).real
    out = [n + 2 * padding - len(w) + 1 for n in x.shape]
    down, right = ((np.arange(n) - padding) % period for n in out)
    return circle[np.ix_(down, right)]


def engine(x, w, padding):
    """The same by F.conv2d."""
    return F.conv2d(mg.tensor(x[None, None]), mg.tensor(w[None, None]), padding=padding).numpy()[0, 0]


def smallest_period(size, kernel, padding):
    """The smallest circle on which nothing wraps around onto a pixel that is kept.

    Pixel a and tap i meet in output pixel q = a - i + padding: from padding - (kernel - 1) up to
    size - 1 + padding. Kept are 0 to out - 1. A period above 0 must lie past the last q, and a period
    below out - 1 before the first.
    """
    out = size + 2 * padding - kernel + 1
    return max(size + padding, out - padding + kernel - 1)


def multiplications(size, kernel, padding):
    """For one pair of channels: (plain, in the frequency domain)."""
    out, period = size + 2 * padding - kernel + 1, smallest_period(size, kernel, padding)
    real = 1 if period % 2 else 4  # frequencies that are opposite to themselves
    return out**2 * kernel**2, real + 3 * (period**2 - real) // 2


def arrays(size, kernel):
    """An image (size, size) and a kernel (kernel, kernel)."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(size, size)), rng.normal(size=(kernel, kernel))


def errors(size, kernel, padding):
    """For each period from the size of the image on: |difference from F.conv2d| by pixel."""
    x, w = arrays(size, kernel)
    right = engine(x, w, padding)
    periods = range(size, size + kernel)
    return {p: np.abs(on_a_circle(x, w, p, padding) - right) for p in periods}


def draw(found, size, kernel, padding, path):
    """The error by pixel for some periods, and the multiplications for several kernels."""
    enough = smallest_period(size, kernel, padding)
    shown = [p for p in found if p <= enough][-3:]
    with saved_figure(path, (3.4 * len(shown) + 5, 4), dpi=100) as figure:
        *maps, counts = figure.subplots(1, len(shown) + 1, width_ratios=[1] * len(shown) + [1.45])
        for axes, period in zip(maps, shown, strict=True):
            # Rounding shows as 1e-15; what wraps around as 0.1 and more.
            image = axes.imshow(np.log10(np.maximum(found[period], 1e-17)), cmap="magma", vmin=-17, vmax=1)
            axes.set(title=f"period {period}" + (": enough" if period == enough else ""),
                     xlabel="column of the result")  # fmt: skip
        maps[0].set_ylabel("row of the result")
        figure.colorbar(image, ax=maps, label="log10 of |error|", location="left", shrink=0.75)
        kernels = [k for k in (1, 3, 5, 7, 9) if k // 2 <= size]
        plain, frequency = zip(*(multiplications(size, k, k // 2) for k in kernels), strict=True)
        counts.plot(kernels, plain, "o-", color="tab:red", label="plain")
        counts.plot(kernels, frequency, "s-", color="tab:blue", label="frequency domain")
        counts.set(title=f"for one pair of channels, {size} x {size} pixels", xlabel="size of the kernel",
                   ylabel="multiplications", yscale="log", xticks=kernels)  # fmt: skip
        counts.grid(alpha=0.3, which="both")
        counts.legend()


def main(argv=None):
    """Compare periods, count, draw; returns 0."""
    parser = argparse.ArgumentParser(description="A convolution in the frequency domain.")
    parser.add_argument("--size", type=int, default=7, help="height and width of x (default: 7)")
    parser.add_argument("--kernel", type=int, default=5, help="size of the kernel, odd (default: 5)")
    parser.add_argument("--out", default="07_frequency_domain.png", help="where the picture goes")
    args = parser.parse_args(argv)
    if not (args.kernel % 2 and 1 <= args.kernel <= args.size):
        parser.error("expected an odd --kernel of at most --size")
    padding = args.kernel // 2
    found = errors(args.size, args.kernel, padding)
    print(f"{args.kernel} x {args.kernel} on {args.size} x {args.size}, padding {padding}:\n")
    print("  period   largest difference from F.conv2d   pixels that are wrong")
    for period, difference in found.items():
        wrong = np.count_nonzero(difference > 1e-9)
        print(f"  {period:6d}   {difference.max():32.1e}   {wrong:10d} of {difference.size}")
    enough = smallest_period(args.size, args.kernel, padding)
    print(f"\nThe formula says: {enough} is enough.")
    plain, frequency = multiplications(args.size, args.kernel, padding)
    print(f"Multiplications for one pair of channels: {plain} plain, {frequency} by frequencies,")
    print(f"{plain / frequency:.1f} times fewer.")
    draw(found, args.size, args.kernel, padding, args.out)
    print(f"\n{args.out}: what wraps around, and the multiplications")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
