"""Every operation at zeros, subnormals, ties, infinities, NaN, the largest and the smallest floats.

What is right is in the table tests/special, which shares nothing with the engine.
"""

import decimal
from decimal import Decimal

import numpy as np
import pytest
from special import ROWS, functions
from special.numbers import EXACT, each, exact, times
from special.rows import decided_by_rounding, flush, wrong_places

import minigrad as mg
import minigrad.functional as F
from minigrad.ops import OPERATIONS

EVERY_DEVICE = True
pytestmark = pytest.mark.every_form


class Check:
    """A row in one dtype on one device; `wrong` holds what is not right, in words."""

    def __init__(self, row, dtype, device):
        self.row, self.wrong = row, []
        self.flushed = device == "gpu" and dtype == "float32"  # by CuPy: see GPUBackend
        self.inputs = [flush(a) if self.flushed else a for a in row.inputs(dtype)]
        self.exact = [exact(a) for a in self.inputs]
        self.tensors = [mg.tensor(a, requires_grad=True) for a in self.inputs]
        self.y = row.call(*self.tensors)
        self.factors = row.factors(*self.exact) if row.factors else None

    def compare(self, what, found, right, ulps, slack=0, signed=False, but=False):
        bad = wrong_places(found, right, ulps, slack, signed, self.flushed) & ~np.asarray(but)
        if not bad.any():
            return
        self.wrong.append(f"{self.row.operation} {self.row.label}: {what}, {int(bad.sum())} places")
        for place in list(zip(*np.nonzero(bad), strict=True))[:6]:
            given = [str(a[place]) if a.shape == found.shape else "..." for a in self.inputs]
            expected = float(np.asarray(right)[place])
            self.wrong.append(f"  at {', '.join(given)}: {found[place]!r}, right is {expected!r}")

    def value(self):
        right = self.row.value(*self.exact)
        self.compare("the value", self.y.numpy(), right, self.row.ulps, 0, self.row.signed)

    def first_order(self, above):
        row, y = self.row, self.y
        dy = np.full(y.shape, above, y.dtype)
        slack = row.slack(*self.exact) if row.slack else 0
        but = [False] * len(self.tensors)
        if self.factors is None:
            right = row.first(exact(dy), *self.exact)
        else:
            right = [times(Decimal(above), f) for f in self.factors]
            if above in (0, np.inf):
                but = [decided_by_rounding(f, str(y.dtype), slack) for f in self.factors]
        for recorded in (False, True):
            found = mg.grad(y, self.tensors, mg.tensor(dy), create_graph=recorded, retain_graph=True)
            for i, gradient in enumerate(found):
                what = f"gradient {i} for dy = {above}{', recorded' if recorded else ''}"
                self.compare(what, gradient.numpy(), right[i], row.ulps, slack, but=but[i])

    def second_order(self):
        row, y = self.row, self.y
        slack = row.slack2(*self.exact) if row.slack2 else 0
        dy = mg.tensor(np.ones(y.shape, y.dtype), requires_grad=True)
        gradients = mg.grad(y, self.tensors, dy, create_graph=True)
        right = row.second(*self.exact) if row.second else None
        but = each(row.unclear)(*self.exact).astype(bool) if row.unclear else False
        for i, gradient in enumerate(gradients):
            ones = mg.tensor(np.ones(gradient.shape, gradient.dtype))
            *again, by_dy = mg.grad(gradient, [*self.tensors, dy], ones, retain_graph=True)
            for j, (found, given) in enumerate(zip(again, self.inputs, strict=True)):
                wanted = right[i][j] if right else None
                wanted = exact(np.zeros(given.shape)) if wanted is None else wanted
                what = f"second derivative {i}, {j}"
                self.compare(what, found.numpy(), wanted, 4 * row.ulps, slack, but=but)
            if self.factors and self.factors[i].shape == y.shape:
                slack1 = row.slack(*self.exact) if row.slack else 0
                wanted = times(Decimal(1), self.factors[i])
                self.compare(f"gradient {i} by dy", by_dy.numpy(), wanted, row.ulps, slack1, but=but)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("row", [pytest.param(r, id=f"{r.operation}-{r.label}".strip("-")) for r in ROWS])
def test_special_values(default_device, row, dtype):
    with decimal.localcontext(EXACT):
        check = Check(row, dtype, default_device)
        check.value()
        for above in row.above:
            check.first_order(above)
        check.second_order()
    assert not check.wrong, "\n".join(check.wrong)


def test_every_operation_has_a_row():
    assert {row.operation for row in ROWS} == set(OPERATIONS)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_images_and_parts_of_them_have_the_values_of_their_numbers(default_device, dtype):
    """With the channels innermost, and with gaps in memory, other loops run."""
    for row in functions.ROWS:
        x = row.inputs(dtype)[0]
        if len(row.inputs(dtype)) > 1 or len(x) < 80:
            continue
        x = x[:80]
        flat = values_and_gradients(row, mg.tensor(x, requires_grad=True))
        innermost = x.reshape(2, 4, 5, 2).transpose(0, 3, 1, 2)  # (N, C, H, W)
        others = [mg.tensor(innermost, requires_grad=True)]
        if default_device == "cpu":  # on the GPU our kernels get copies without gaps
            others.append(mg.tensor(np.stack([x, x], axis=1), requires_grad=True)[:, 0])  # (80,)
        for other in others:
            for one, lying in zip(flat, values_and_gradients(row, other), strict=True):
                standing = lying.transpose(0, 2, 3, 1) if lying.ndim == 4 else lying
                info = np.finfo(one.dtype)
                # 1 - y * y, of tanh, is rounded once in C, where there is an instruction for it, else twice.
                near_0 = info.eps if row.operation == "tanh" else info.smallest_subnormal
                room = {"rtol": 8 * float(info.eps), "atol": 8 * float(near_0)}
                np.testing.assert_allclose(standing.reshape(-1), one, **room)


def values_and_gradients(row, x):
    y = row.call(x)
    above = mg.tensor(np.full(y.shape, 2, y.dtype))
    gradients = [
        mg.grad(y, x, above, create_graph=recorded, retain_graph=True)[0] for recorded in (False, True)
    ]
    return [t.numpy() for t in (y, *gradients)]


def test_comparisons_with_nan():
    nan, inf = np.nan, np.inf
    a = mg.tensor([nan, nan, 1.0, inf, 0.0, -inf])
    b = mg.tensor([nan, 1.0, nan, inf, -0.0, inf])
    for compared, right in (
        (a == b, [False, False, False, True, True, False]),
        (a != b, [True, True, True, False, False, True]),
        (a < b, [False, False, False, False, False, True]),
        (a <= b, [False, False, False, True, True, True]),
        (a > b, [False, False, False, False, False, False]),
        (a >= b, [False, False, False, True, True, False]),
    ):
        assert compared.numpy().tolist() == right


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_infinite_logits_have_their_gradients(reduction):
    """The loss itself is NaN or infinite: inf - inf and inf * 0 are in it."""
    for target, losses, gradients in (
        (0.0, [np.nan, np.nan], [1.0, 0.0]),
        (1.0, [np.nan, np.inf], [0.0, -1.0]),
        (0.25, [np.nan, np.inf], [0.75, -0.25]),
    ):
        x = mg.tensor([np.inf, -np.inf], requires_grad=True)
        loss = F.binary_cross_entropy_with_logits(x, target, reduction)
        right = losses if reduction == "none" else np.nan
        assert np.array_equal(loss.numpy(), np.array(right, "f"), equal_nan=True)
        loss.sum().backward()
        assert x.grad.numpy().tolist() == [g / (2 if reduction == "mean" else 1) for g in gradients]


def test_batch_norm_of_values_whose_squares_overflow():
    """For any h, (-h, h, h) becomes (-2, 1, 1) / sqrt(2); the gradient is the formula's."""
    x = mg.tensor(np.array([[-1e20, -2.0], [1e20, 2.0], [1e20, 2.0]], "f"), requires_grad=True)
    weight, bias = (mg.tensor([v, v], requires_grad=True) for v in (1.0, 0.0))
    y = F.batch_norm(x, None, None, weight, bias, training=True, eps=0.0)
    xhat = np.array([-(2**0.5), 0.5**0.5, 0.5**0.5])
    assert np.allclose(y.numpy(), xhat[:, None])
    dy = np.array([0.0, 3.0, 1.0])
    dx, dweight = mg.grad(y, [x, weight], mg.tensor(np.stack([dy, dy], 1).astype("f")))
    inner = dy - dy.mean() - xhat * (dy * xhat).mean()
    assert np.allclose(dweight.numpy(), (dy * xhat).sum())
    assert np.allclose(dx.numpy() * [1e20, 2.0], (inner * 2 / (32 / 9) ** 0.5)[:, None], atol=1e-6)


def test_a_sum_over_images_overflows_only_where_its_result_does():
    largest = float(np.finfo("f").max)
    x = np.zeros((2, 3, 32, 32), "f")  # (N, C, H, W)
    x[0, 0], x[1, 0] = largest / 2, -largest / 2
    x[:, 1] = largest / 2
    x[0, 2, 0, 0] = np.nan
    found = F.sum(mg.tensor(x), (0, 2, 3)).numpy()
    assert np.array_equal(found, np.array([0, np.inf, np.nan], "f"), equal_nan=True)


def test_what_float32_can_not_hold():
    x = mg.tensor(np.array([1e300, -1e300, 3.4028235677973366e38, 1e-320, np.nan, -np.inf]))
    right = np.array([np.inf, -np.inf, np.inf, 0.0, np.nan, -np.inf], "f")
    assert np.array_equal(x.to("float32").numpy(), right, equal_nan=True)
