"""Every operation at zeros, subnormals, ties, infinities, NaN, the largest and the smallest floats.

The table of what is right is in special_rows.py, the exact arithmetic behind it in special_values.py.
"""

import decimal

import numpy as np
import pytest
import special_rows
import special_structures
from special_values import EXACT, decided_by_rounding, each, exact, flush, wrong_places

import minigrad as mg
from minigrad.ops import OPERATIONS

EVERY_DEVICE = True
ROWS = [*special_rows.ROWS, *special_structures.ROWS]


class Check:
    """A row in one dtype on one device; `wrong` holds what is not right, in words."""

    def __init__(self, row, dtype, device):
        self.row, self.wrong = row, []
        self.flushed = device == "gpu" and dtype == "float32"  # by CuPy: see GPUBackend
        self.inputs = [flush(a) if self.flushed else a for a in row.inputs(dtype)]
        self.exact = [exact(a) for a in self.inputs]
        self.tensors = [mg.tensor(a, requires_grad=True) for a in self.inputs]
        self.y = row.call(*self.tensors)

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
        right, but = row.first(exact(dy), *self.exact), [False] * len(self.tensors)
        if row.pointwise and above in (0, np.inf):
            factors = row.first(exact(np.ones(y.shape)), *self.exact)
            but = [decided_by_rounding(f, str(y.dtype), slack) for f in factors]
        for recorded in (False, True):
            found = mg.grad(y, self.tensors, mg.tensor(dy), create_graph=recorded, retain_graph=True)
            for i, gradient in enumerate(found):
                what = f"gradient {i} for dy = {above}{', recorded' if recorded else ''}"
                self.compare(what, gradient.numpy(), right[i], row.ulps, slack, but=but[i])

    def second_order(self):
        row, y = self.row, self.y
        slack = row.slack2(*self.exact) if row.slack2 else 0
        gradients = mg.grad(y, self.tensors, mg.tensor(np.ones(y.shape, y.dtype)), create_graph=True)
        right = row.second(*self.exact) if row.second else None
        but = each(row.unclear)(*self.exact).astype(bool) if row.unclear else False
        for i, gradient in enumerate(gradients):
            if not gradient.requires_grad:
                continue
            above = mg.tensor(np.ones(gradient.shape, gradient.dtype))
            again = mg.grad(gradient, self.tensors, above, allow_unused=True, retain_graph=True)
            for j, (found, given) in enumerate(zip(again, self.inputs, strict=True)):
                found = np.zeros_like(given) if found is None else found.numpy()
                wanted = right[i][j] if right else None
                wanted = exact(np.zeros(given.shape)) if wanted is None else wanted
                self.compare(f"second derivative {i}, {j}", found, wanted, 4 * row.ulps, slack, but=but)


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
