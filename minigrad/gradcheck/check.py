"""`gradcheck`: analytic gradients against central differences, in float64.

The function's outputs are multiplied by random numbers and summed, which gives one number F. Along
a direction u of the inputs, F changes at the rate

    D(h) = (F(x + h u) - F(x - h u)) / (2 h) = F'(x) u + O(h^2),

and (4 D(h/2) - D(h)) / 3 leaves an error of O(h^4) (Richardson, 1911). The gradients must say the
same, along random directions and, where the inputs are small enough, along every element.

A kink between x - h u and x + h u (as of ReLU near 0) makes the measurement mean nothing. It
is noticed by the bend S(h) = (F(x + h u) - 2 F(x) + F(x - h u)) / h: where F is smooth it halves
with h, across a kink it does not. Elements with a kink are left out, and counted.

Each element moves by h times its own size (of MIN_SCALE at least). What this can't measure: functions
whose values are so large beside their changes that rounding hides these (x + 1e8), or that bend
within the step (log at 1e-6).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend.ieee import ieee
from ..backpropagate import grad
from ..tensor import Tensor
from .advice import advice
from .report import Element, GradcheckError, Report
from .vectors import Array, halves, inner, norm

# What |analytic - numeric| / max(|analytic|, |numeric|, 1e-3) may be, by the dtype that the inputs have.
# Norms over all that is compared, so that one tiny element among large ones does not decide; the 1e-3 is so
# that the rounding of what is next to 0 does not.
TOLERANCES = {"float64": 1e-6}

STEP = 1e-4  # h, for an input of size 1: its fourth power is under the tolerance by far, and F's
# rounding over h too. It grows and shrinks with the input, down to that for MIN_SCALE.
MIN_SCALE = 1e-2
KINK_THRESHOLD = 1e-7  # a bend that does not halve by this share of the slope is a kink: under the tolerance
ROUNDING_THRESHOLD = 1e-10  # and so is no smaller share of F, since F's own rounding bends it so much
MAX_ELEMENTS = 400  # inputs with more elements are checked along random directions only
DIRECTIONS = 3
WHAT = {1: "gradient of input", 2: "second-order gradient of input"}


@dataclass
class _Measured:
    """The rate along one direction, and whether a kink spoils it."""

    rate: float
    kink: bool


def gradcheck(
    fn: Callable[..., Any], inputs: Tensor | Sequence[Tensor], order: int = 1, *, seed: int = 0
) -> bool:
    """Check the gradients of `fn` at `inputs`; True, or a GradcheckError that says what is wrong.

    Args:
        fn: takes the inputs as tensors and gives a tensor or several. It must give the same values
            each time it is called (seed what is random inside). NumPy's floating-point errors are
            ignored in it.
        inputs: float64 tensors; those that require a gradient are checked.
        order: 1 checks the gradients; 2 also checks the gradients of the gradients, with respect
            to the inputs and to the gradients that come from above.
        seed: of the random directions.

    Raises GradcheckError for a wrong gradient (naming the input, the worst element and both
    numbers), a function that is not deterministic, gradients of a wrong dtype or shape, and where
    kinks leave nothing to check; TypeError or ValueError for inputs that can't be checked.
    """
    measure(fn, inputs, order, seed=seed)
    return True


@ieee()
def measure(
    fn: Callable[..., Any], inputs: Tensor | Sequence[Tensor], order: int = 1, *, seed: int = 0
) -> Report:
    """As `gradcheck`, but gives what was measured; an error for a wrong gradient holds it as `found`."""
    if order not in (1, 2):
        raise ValueError(f"gradcheck: expected order 1 or 2, got {order!r}")
    points = checked_inputs(inputs, "gradcheck")
    for i, point in enumerate(points):
        if point.requires_grad and str(point.dtype) not in TOLERANCES:
            raise TypeError(
                f"gradcheck: input {i} is {point.dtype}, in which differences measure mostly rounding: "
                "use .to('float64')"
            )
    rng = np.random.default_rng(seed)
    report = _Check(fn, points, rng, order=1).run()
    return report | check_second_order(fn, points, rng) if order == 2 else report


def checked_inputs(inputs: Any, name: str) -> list[Tensor]:
    """One tensor or several as a list; an error of the check of this name where there is none to check."""
    several = isinstance(inputs, Iterable) and not isinstance(inputs, Tensor | np.ndarray)
    points = list(inputs) if several else [inputs]
    for i, point in enumerate(points):
        if not isinstance(point, Tensor):
            raise TypeError(
                f"{name}: expected tensors, got {type(point).__name__} as input {i}: make it one with "
                "minigrad.tensor(..., requires_grad=True)"
            )
    if not any(point.requires_grad for point in points):
        raise ValueError(f"{name}: no input requires a gradient; set requires_grad=True")
    return points


def check_repeats(first: list[Tensor], second: list[Tensor]) -> None:
    """GradcheckError where two calls of a function with the same inputs gave something else."""
    advice = "the function is not deterministic. Call minigrad.manual_seed inside it, or use eval()"
    if len(first) != len(second):
        raise GradcheckError(
            f"{len(first)} outputs, then {len(second)}, in two calls with the same inputs: {advice}"
        )
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        if not np.array_equal(a.numpy(), b.numpy(), equal_nan=True):
            raise GradcheckError(f"output {i} differs between two calls with the same inputs: {advice}")


def check_second_order(fn: Callable[..., Any], points: list[Tensor], rng: np.random.Generator) -> Report:
    """The gradients, as a function of the inputs and of what comes from above, are checked in turn."""
    wanted = [i for i, p in enumerate(points) if p.requires_grad]
    outputs = [out for out in as_list(fn(*points)) if out.requires_grad]
    above = [
        Tensor(out.backend.asarray(rng.standard_normal(out.shape)), requires_grad=True, backend=out.backend)
        for out in outputs
    ]
    _check_recorded_equals_plain(outputs, [points[i] for i in wanted], above)

    def gradients(*both: Tensor) -> list[Tensor]:
        xs, vs = both[: len(points)], both[len(points) :]
        outs = [out for out in as_list(fn(*xs)) if out.requires_grad]
        found = grad(outs, [xs[i] for i in wanted], list(vs), create_graph=True, allow_unused=True)
        return [g for g in found if g is not None]

    return _Check(gradients, [*points, *above], rng, order=2).run()


def _check_recorded_equals_plain(outputs: list[Tensor], inputs: list[Tensor], above: list[Tensor]) -> None:
    """An operation may have a `fused_backward` for where no graph is recorded: both must give the same."""
    plain, recorded = (
        grad(outputs, inputs, above, create_graph=create_graph, retain_graph=True, allow_unused=True)
        for create_graph in (False, True)
    )
    for i, (a, b) in enumerate(zip(plain, recorded, strict=True)):
        x, y = (None if g is None else g.numpy() for g in (a, b))
        if x is None or y is None:
            same = x is y
        else:
            same = bool(np.linalg.norm(x - y) <= TOLERANCES["float64"] * max(float(np.linalg.norm(x)), 1e-6))
        if not same:
            raise GradcheckError(
                f"gradient of input {i}: with create_graph=True it is another than without. Look for a "
                "fused_backward that is not the backward, or a rule that asks is_grad_enabled()"
            )


def as_list(outputs: Any) -> list[Tensor]:
    """One tensor or several as a list. Raises TypeError for what a checked function may not return."""
    if isinstance(outputs, Tensor):
        return [outputs]
    several = list(outputs) if isinstance(outputs, list | tuple | Iterator) else None
    if several is not None and all(isinstance(out, Tensor) for out in several):
        return several
    got = type(outputs).__name__
    if several is not None:
        got += f" with {next(type(out).__name__ for out in several if not isinstance(out, Tensor))}"
    raise TypeError(
        f"gradcheck: expected the function to return a tensor or a list of tensors, got {got}: compute with "
        "minigrad's functions, and return what they give"
    )


class _Check:
    """One function at one point."""

    def __init__(
        self, fn: Callable[..., Any], points: list[Tensor], rng: np.random.Generator, order: int
    ) -> None:
        self.fn, self.points, self.rng, self.order, self.what = fn, points, rng, order, WHAT[order]
        self.wanted = [i for i, p in enumerate(points) if p.requires_grad]
        self.start = [points[i].numpy().copy() for i in self.wanted]
        self.scale = [np.maximum(np.abs(a), MIN_SCALE) for a in self.start]
        outputs = self._outputs(self.start)
        self.weights = [rng.standard_normal(out.shape) for out in outputs]
        check_repeats(outputs, self._outputs(self.start))
        self._check_outputs(outputs)
        self.centre = self._value(self.start)

    def run(self) -> Report:
        analytic = self._analytic()
        if self._size() > MAX_ELEMENTS:
            return self._directions(analytic, [np.ones_like(a) for a in self.start])
        smooth, report = self._elements(analytic)
        return report | self._directions(analytic, smooth)

    # -- the function, and what the engine says of it ------------------------------------------------

    def _outputs(self, values: list[Array]) -> list[Tensor]:
        return as_list(self.fn(*self._at(values)))

    def _at(self, values: list[Array]) -> list[Tensor]:
        """Fresh inputs with these values where a gradient is wanted."""
        replaced = dict(zip(self.wanted, values, strict=True))
        return [
            Tensor(p.backend.asarray(replaced[i].copy()), requires_grad=True, backend=p.backend)
            if i in replaced
            else p
            for i, p in enumerate(self.points)
        ]

    def _value(self, values: list[Array]) -> float:
        """F: the outputs times fixed random numbers, summed without rounding."""
        outputs = self._outputs(values)
        products = [(w * out.numpy()).reshape(-1) for w, out in zip(self.weights, outputs, strict=True)]
        return math.fsum(np.concatenate(products).tolist()) if products else 0.0

    def _check_outputs(self, outputs: list[Tensor]) -> None:
        for i, out in enumerate(outputs):
            if str(out.dtype) not in TOLERANCES:
                raise GradcheckError(
                    f"output {i} is {out.dtype} for float64 inputs: something inside converts; look for "
                    "arrays or parameters made without dtype='float64'"
                )
            if not np.isfinite(out.numpy()).all():
                raise GradcheckError(f"output {i} is not finite: check at inputs inside of the domain")

    def _analytic(self) -> list[Array]:
        inputs = self._at(self.start)
        outputs = as_list(self.fn(*inputs))
        pairs = [(o, w) for o, w in zip(outputs, self.weights, strict=True) if o.requires_grad]
        if not pairs:
            raise GradcheckError("no output depends on the inputs through recorded operations")
        found = grad(
            [o for o, _ in pairs],
            [inputs[i] for i in self.wanted],
            [Tensor(o.backend.asarray(w), backend=o.backend) for o, w in pairs],
            allow_unused=True,
        )
        gradients = []
        for i, start, g in zip(self.wanted, self.start, found, strict=True):
            if g is not None and (g.shape != start.shape or str(g.dtype) != str(start.dtype)):
                raise GradcheckError(
                    f"{self.what} {i} is {g.dtype} of shape {g.shape}, "
                    f"the input {start.dtype} of {start.shape}"
                )
            gradients.append(np.zeros_like(start) if g is None else g.numpy())
        return gradients

    # -- measuring -----------------------------------------------------------------------------------

    def _size(self) -> int:
        return sum(a.size for a in self.start)

    def _measure(self, direction: list[Array]) -> _Measured:
        def along(h: float) -> float:
            return self._value([x + h * u for x, u in zip(self.start, direction, strict=True)])

        values = {h: along(h) for h in (STEP, -STEP, STEP / 2, -STEP / 2)}
        rates, bends = [], []
        for h in (STEP, STEP / 2):
            rates.append((values[h] - values[-h]) / (2 * h))
            bends.append((values[h] - 2 * self.centre + values[-h]) / h)
        slope = max(abs(rates[0]), abs(rates[1]), abs(bends[0]))
        rounding = ROUNDING_THRESHOLD * max(abs(v) for v in values.values())
        kink = abs(bends[0] - 2 * bends[1]) > KINK_THRESHOLD * slope + rounding
        return _Measured((4 * rates[1] - rates[0]) / 3, kink)

    def _elements(self, analytic: list[Array]) -> tuple[list[Array], Report]:
        """Every element by itself; gives where no kink was, as 1 and 0, and what was found there."""
        smooth = [np.ones_like(a) for a in self.start]
        numeric = [np.zeros_like(a) for a in self.start]
        for k, start in enumerate(self.start):
            for index in np.ndindex(start.shape):
                direction = [np.zeros_like(a) for a in self.start]
                direction[k][index] = self.scale[k][index]
                measured = self._measure(direction)
                if measured.kink:
                    smooth[k][index] = 0.0
                else:
                    numeric[k][index] = measured.rate / self.scale[k][index]
        if self._size() and not any(s.any() for s in smooth):
            raise GradcheckError(
                f"{self.what}s: every element stands on a kink (as ReLU does at 0), so nothing can be "
                "checked: choose other inputs"
            )
        report = Report()
        for k in range(len(self.start)):
            left_out = int((smooth[k] == 0).sum())
            report |= self._compare(k, analytic[k] * smooth[k], numeric[k], left_out)
        return smooth, report

    def _compare(self, k: int, analytic: Array, numeric: Array, left_out: int) -> Report:
        """One input's gradient against its differences; raises where they are too far apart."""
        if not analytic.size:
            return Report()
        tolerance = TOLERANCES[str(self.start[k].dtype)]
        difference = np.abs(analytic - numeric)
        scale = max(float(np.linalg.norm(numeric)), float(np.linalg.norm(analytic)), 1e-3)
        error = float(np.linalg.norm(difference) / scale)
        error = error if math.isfinite(error) else math.inf
        # The element to look at is the one that is off most beside its own size.
        own = difference / np.maximum(np.maximum(np.abs(numeric), np.abs(analytic)), 1e-3 * scale)
        own = np.where(np.isfinite(own), own, np.inf)
        place = tuple(int(i) for i in np.unravel_index(np.argmax(own), own.shape))
        worst = Element(
            self.order, self.wanted[k], place, float(analytic[place]), float(numeric[place]), error
        )
        report = Report(error, worst, left_out)
        if error <= tolerance:
            return report
        kinks = f"; {left_out} elements at kinks left out" if left_out else ""
        raise GradcheckError(
            f"{self.what} {self.wanted[k]} (shape {self.start[k].shape}): relative error {error:.3g}, "
            f"allowed {tolerance:g}. Worst at {place}: analytic {worst.analytic:.10g}, "
            f"numeric {worst.numeric:.10g}{kinks}. {advice(analytic, numeric)}",
            report,
        )

    def _directions(self, analytic: list[Array], smooth: list[Array]) -> Report:
        """Random directions, all inputs at once; the elements known to stand on kinks stay still."""
        report = Report()
        moved = [np.zeros(a.shape, bool) for a in self.start]
        for _ in range(DIRECTIONS):
            direction = [
                self.rng.standard_normal(size.shape) * size * mask
                for size, mask in zip(self.scale, smooth, strict=True)
            ]
            direction, measured = self._without_kinks(direction)
            moved = [m | (u != 0) for m, u in zip(moved, direction, strict=True)]
            expected = inner(analytic, direction)
            scale = max(abs(measured.rate), abs(expected), 1e-3 * norm(analytic) * norm(direction), 1e-3)
            error = abs(expected - measured.rate) / scale if math.isfinite(expected) else math.inf
            report |= Report(error)
            if error <= TOLERANCES["float64"]:
                continue
            self._locate(analytic, direction)
            raise GradcheckError(
                f"{self.what}s: along a random direction the values change at a rate of "
                f"{measured.rate:.10g}, the gradients say {expected:.10g}, "
                "though every element checked by itself agrees",
                report,
            )
        if self._size() <= MAX_ELEMENTS:  # what stood still was compared, or counted, by itself
            return report
        return report | Report(left_out=sum(int((~m).sum()) for m in moved))

    def _without_kinks(self, direction: list[Array]) -> tuple[list[Array], _Measured]:
        """The direction without the elements whose kinks it crosses, found by halving."""
        for _ in range(60):
            measured = self._measure(direction)
            if not measured.kink:
                return direction, measured
            culprit = direction
            while (parts := halves(culprit)) is not None:
                culprit = next((part for part in parts if self._measure(part).kink), parts[0])
            direction = [np.where(c != 0, 0.0, u) for c, u in zip(culprit, direction, strict=True)]
        raise GradcheckError(
            f"{self.what}s: too many kinks near these inputs (or a function rough everywhere): choose others"
        )

    def _locate(self, analytic: list[Array], direction: list[Array]) -> None:
        """Find a wrong element among many by halving the direction, and report it."""
        part = direction
        while (parts := halves(part)) is not None:
            gaps = [abs(inner(analytic, p) - self._measure(p).rate) for p in parts]
            part = parts[int(gaps[1] > gaps[0])]
        for k, u in enumerate(part):
            for index in np.argwhere(u):
                place = tuple(int(i) for i in index)
                only = [np.zeros_like(a) for a in self.start]
                only[k][place] = self.scale[k][place]
                numeric = np.zeros_like(self.start[k])
                numeric[place] = self._measure(only).rate / self.scale[k][place]
                self._compare(k, np.where(only[k] != 0, analytic[k], 0.0), numeric, 0)
