"""The adjoint test: is what backward gives the transpose of what forward does? It needs no epsilon.

For a linear map A, <A x, y> = <x, A^T y> for every x and y. Where a function f is linear in an input (the
others held fixed), A x = f(x) - f(0) is known from forward alone and A^T y is the gradient that backward
gives for y from above: both sides are plain numbers, and must agree to rounding. Source: Claerbout, "Earth
Soundings Analysis: Processing versus Inversion" (1992), chapter 5, the dot product test.

At a point where f is not linear, it has the Jacobian J, and backward gives J^T w. That is linear in w, so
the gradient of <J^T w, u> with respect to w is J u, exactly, and <J u, v> = <u, J^T v> is checked.
Source: Townsend, "A new trick for calculating Jacobian vector products" (2017).

What they catch that differences (check.py) do not:

- The first takes whole steps, so nothing is lost by dividing rounding by a step: it is exact to 1e-12 where
  differences see 1e-6, and it holds where values are large beside their changes, at any number of elements,
  and in float32. Each gradient is computed alone, by the path for one that is wanted without the others.
- The second holds the gradients of the gradients, with respect to what comes from above, against the
  gradients that are computed without a graph, to rounding and in float32 too: a rule that is not linear
  in dy, or is another where a graph is recorded.

What they do not catch: the second says nothing of whether J is the Jacobian of f, which the differences do;
neither looks at gradients of gradients with respect to inputs.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backend.ieee import ieee
from ..backpropagate import grad
from ..tensor import Tensor
from .check import as_list, check_repeats, checked_inputs
from .report import Adjoint, GradcheckError
from .vectors import Array, halves, inner, norm

# What |<A x, y> - <x, A^T y>| may be, beside |A x| |y| and |x| |A^T y|: rounding, of some hundred sums.
ADJOINT_TOLERANCES = {"float64": 1e-12, "float32": 1e-5}
# A is linear if A(a x + b z) = a A x + b A z. The first pair tells it from |x| and its like.
COMBINATIONS = ((-1.0, 0.0), (0.75, -1.25))


@ieee()
def check_adjoint(fn: Callable[..., Any], inputs: Tensor | Sequence[Tensor], *, seed: int = 0) -> Adjoint:
    """Check that the gradients of `fn` are the transpose of what it does; see the head of this file.

    Which inputs `fn` is linear in is found out, up to a constant (a bias): there the first form runs, at
    random values of the size of the input's. The second runs for all inputs together, at their values.

    Args:
        fn: takes the inputs as tensors and gives a tensor or several, the same each time it is called.
        inputs: float64 or float32 tensors of any size; those that require a gradient are checked.
        seed: of the random numbers.

    Returns the largest error, and the inputs that `fn` is linear in. Raises GradcheckError where an error is
    over ADJOINT_TOLERANCES and for a function that is not deterministic, TypeError for inputs that are no
    tensors, and ValueError where none requires a gradient.
    """
    points = checked_inputs(inputs, "check_adjoint")
    wanted = [i for i, p in enumerate(points) if p.requires_grad]
    check_repeats(as_list(fn(*points)), as_list(fn(*points)))
    rng = np.random.default_rng(seed)
    error = 0.0
    linear: tuple[int, ...] = ()
    for i in wanted:
        found = _check_linear(_Map(fn, points, i), rng)
        if found is not None:
            error, linear = max(error, found), (*linear, i)
    return Adjoint(max(error, _check_jacobian(fn, points, wanted, linear, rng)), linear)


class _Map:
    """The function of one input, the others held fixed."""

    def __init__(self, fn: Callable[..., Any], points: list[Tensor], i: int) -> None:
        self.fn, self.points, self.i = fn, points, i

    def draw(self, rng: np.random.Generator) -> Array:
        """Random values of the input's size, in its shape and dtype."""
        here = self.points[self.i].numpy()
        size = float(np.sqrt(np.mean(here.astype(np.float64) ** 2))) if here.size else 0.0
        return np.asarray(rng.standard_normal(here.shape) * (size or 1.0), here.dtype)

    def outputs(self, x: Array) -> tuple[Tensor, list[Tensor]]:
        """The input with these values, and what the function makes of it as far as that has a gradient."""
        fresh = [Tensor(p.data, backend=p.backend, requires_grad=p.requires_grad) for p in self.points]
        backend = fresh[self.i].backend
        fresh[self.i] = Tensor(backend.asarray(x.copy()), requires_grad=True, backend=backend)
        return fresh[self.i], [out for out in as_list(self.fn(*fresh)) if out.requires_grad]

    def values(self, x: Array) -> list[Array]:
        return [_on_host(out) for out in self.outputs(x)[1]]

    def transposed(self, x: Array, y: list[Array]) -> Array:
        """The gradient at x, by itself, where y comes from above."""
        at, outputs = self.outputs(x)
        return _on_host(_gradients(outputs, [at], _like(outputs, y))[0], at)


def _check_linear(f: _Map, rng: np.random.Generator) -> float | None:
    """The error of <A x, y> = <x, A^T y> in one input; None where the function is not linear in it."""
    x, z = f.draw(rng), f.draw(rng)
    zero = _constant_of_linear(f, x, z)
    if zero is None:
        return None
    at, outputs = f.outputs(x)
    y = _draws(outputs, rng)
    back = f.transposed(x, y)

    def forward(part: Array) -> float:
        return inner(_less(f.values(part), zero), y)

    left, right = forward(x), inner([x], [back])
    reach = (norm([_on_host(out) for out in outputs]) + norm(zero)) * norm(y)
    error = _relative(left, right, max(reach, norm([x.astype(np.float64)]) * norm([back])))
    allowed = _allowed([at, *outputs])
    if error <= allowed:
        return error
    part = _worst_part(x, lambda part: abs(forward(part) - inner([part], [back])))
    place = tuple(int(k) for k in np.argwhere(part)[0])
    raise GradcheckError(
        f"adjoint test of input {f.i} (shape {x.shape}), in which the function is linear: <A x, y> is "
        f"{left:.10g}, <x, A^T y> {right:.10g}; relative error {error:.3g}, allowed {allowed:g}. Worst at "
        f"{place}: by backward {float(back[place]):.10g}, by forward {forward(part) / float(x[place]):.10g}. "
        "Look at where backward puts what comes from above (an offset, an order of axes), and at constants.",
        Adjoint(error, (f.i,)),
    )


def _constant_of_linear(f: _Map, x: Array, z: Array) -> list[Array] | None:
    """f(0) where f is linear but for that constant, as far as x and z can tell; else None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 0 may lie outside of its domain
            zero, fx, fz = f.values(np.zeros_like(x)), f.values(x), f.values(z)
            mixed = [f.values((a * x + b * z).astype(x.dtype)) for a, b in COMBINATIONS]
            allowed = _allowed([Tensor(x), *f.outputs(x)[1]])
            return zero if _is_linear(zero, fx, fz, mixed, allowed) else None
    except Exception:  # whatever it raises there: what is linear takes every value
        return None


def _is_linear(
    zero: list[Array], fx: list[Array], fz: list[Array], mixed: list[list[Array]], allowed: float
) -> bool:
    ax, az = _less(fx, zero), _less(fz, zero)
    for (a, b), values in zip(COMBINATIONS, mixed, strict=True):
        expected = [c + a * u + b * v for c, u, v in zip(zero, ax, az, strict=True)]
        if not norm(_less(values, expected)) <= allowed * (norm(zero) + norm(fx) + norm(fz)):
            return False
    return True


def _check_jacobian(
    fn: Callable[..., Any],
    points: list[Tensor],
    wanted: list[int],
    linear: tuple[int, ...],
    rng: np.random.Generator,
) -> float:
    """The error of <J u, v> = <u, J^T v> at the inputs, J u by the gradient of <J^T w, u>."""
    fresh = [Tensor(p.data, backend=p.backend, requires_grad=p.requires_grad) for p in points]
    outputs = [out for out in as_list(fn(*fresh)) if out.requires_grad]
    if not outputs:
        raise GradcheckError("no output depends on the inputs through recorded operations")
    inputs = [fresh[i] for i in wanted]
    w = [Tensor(t.data, requires_grad=True, backend=t.backend) for t in _like(outputs, _draws(outputs, rng))]
    u, v = _draws(inputs, rng), _draws(outputs, rng)
    pairs = [
        (g, t)
        for g, t in zip(_gradients(outputs, inputs, w, create_graph=True), _like(inputs, u), strict=True)
        if g is not None and g.requires_grad
    ]
    along = grad([g for g, _ in pairs], w, [t for _, t in pairs], allow_unused=True, retain_graph=True)
    ju = [_on_host(g, t) for g, t in zip(along, w, strict=True)]
    plain = _gradients(outputs, inputs, _like(outputs, v))
    back = [_on_host(g, t) for g, t in zip(plain, inputs, strict=True)]
    left, right = inner(ju, v), inner(u, back)
    error = _relative(left, right, max(norm(ju) * norm(v), norm(u) * norm(back)))
    allowed = _allowed([*inputs, *outputs])
    if error <= allowed:
        return error
    raise GradcheckError(
        f"adjoint test of the Jacobian: <J u, v> is {left:.10g}, <u, J^T v> {right:.10g}; relative error "
        f"{error:.3g}, allowed {allowed:g}. J u is the gradient of <J^T w, u> with respect to w: look for a "
        "rule that is not linear in dy, takes its array out of the graph, or asks is_grad_enabled(), or a "
        "fused_backward that is not the backward.",
        Adjoint(error, linear),
    )


def _gradients(
    outputs: list[Tensor], inputs: list[Tensor], above: list[Tensor], create_graph: bool = False
) -> tuple[Tensor | None, ...]:
    """The inputs' gradients, None for one that no output depends on; the graph is kept if one is made."""
    return grad(
        outputs, inputs, above, create_graph=create_graph, retain_graph=create_graph, allow_unused=True
    )


def _draws(tensors: list[Tensor], rng: np.random.Generator) -> list[Array]:
    """Random numbers in the shapes of the tensors, as their dtypes can hold them, in float64."""
    return [rng.standard_normal(t.shape).astype(str(t.dtype)).astype(np.float64) for t in tensors]


def _like(tensors: list[Tensor], arrays: list[Array]) -> list[Tensor]:
    """The arrays as tensors of the dtypes and on the devices of `tensors`."""
    return [
        Tensor(t.backend.asarray(np.asarray(a, str(t.dtype))), backend=t.backend)
        for t, a in zip(tensors, arrays, strict=True)
    ]


def _on_host(t: Tensor | None, like: Tensor | None = None) -> Array:
    """The values in float64; zeros in the shape of `like` for None."""
    if t is None:
        assert like is not None
        return np.zeros(like.shape)
    return np.asarray(t.numpy(), np.float64)


def _less(a: list[Array], b: list[Array]) -> list[Array]:
    return [x - y for x, y in zip(a, b, strict=True)]


def _relative(left: float, right: float, scale: float) -> float:
    """Return the distance of two numbers as a share of the scale; infinite where one is NaN."""
    gap = abs(left - right)
    if not np.isfinite(gap):
        return float("inf")
    return gap / scale if gap else 0.0


def _allowed(tensors: list[Tensor]) -> float:
    """The tolerance of the coarsest dtype among them."""
    return max(ADJOINT_TOLERANCES[str(t.dtype)] for t in tensors)


def _worst_part(x: Array, gap: Callable[[Array], float]) -> Array:
    """x with all but one element 0: the one that the largest gap is found at by halving."""
    part = x
    while (parts := halves([part])) is not None:
        first, second = parts[0][0], parts[1][0]
        part = second if gap(second) > gap(first) else first
    return part
