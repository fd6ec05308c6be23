"""Every operation at zeros, subnormals, ties, infinities, NaN, the largest and the smallest floats.

The table of what is right is in special_rows.py, the exact arithmetic behind it in special_values.py.
"""

import decimal

import numpy as np
import pytest
import special_rows
import special_structures
from special_values import EXACT, decided_by_rounding, exact, wrong_places

import minigrad as mg
from minigrad.ops import OPERATIONS

EVERY_DEVICE = True
ROWS = [*special_rows.ROWS, *special_structures.ROWS]

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def report(row, what, inputs, found, right, bad):
    if not bad.any():
        return ""
    lines = [f"{row.operation} {row.label}: {what} wrong at {int(bad.sum())} places"]
    for place in list(zip(*np.nonzero(bad), strict=True))[:6]:
        given = [str(a[place]) if a.shape == found.shape else "..." for a in inputs]
        lines.append(f"  at {', '.join(given)}: {found[place]!r}, right is {float(np.asarray(right)[place])!r}")
    return "\n".join(lines)


def check(row, dtype):
    """Return what is wrong, as text."""
    inputs = row.inputs(dtype)
    numbers = [exact(a) for a in inputs]
    tensors = [mg.tensor(a, requires_grad=True) for a in inputs]
    y = row.call(*tensors)
    right = row.value(*numbers)
    found = [report(row, "the value", inputs, y.numpy(), right, wrong_places(y.numpy(), right, row.ulps, 0, row.signed))]
    for above in row.above:
        found += check_first(row, inputs, numbers, tensors, y, np.full(y.shape, above, y.dtype))
    found += check_second(row, inputs, numbers, tensors, y)
    return "\n".join(text for text in found if text)


def check_first(row, inputs, numbers, tensors, y, dy):
    slack = row.slack(*numbers) if row.slack else 0
    right = row.first(exact(dy), *numbers)
    factors = row.first(exact(np.ones(y.shape)), *numbers)
    by_factor = row.pointwise and dy.reshape(-1)[0] in (0, np.inf)
    for recorded in (False, True):
        gradients = mg.grad(y, tensors, mg.tensor(dy), create_graph=recorded, retain_graph=True)
        for i, (g, r) in enumerate(zip(gradients, right, strict=True)):
            bad = wrong_places(g.numpy(), r, row.ulps, slack)
            if by_factor:
                bad &= ~decided_by_rounding(factors[i], str(y.dtype), slack)
            what = f"gradient {i} for dy = {dy.reshape(-1)[0]}{', recorded' if recorded else ''}"
            yield report(row, what, inputs, g.numpy(), r, bad)


def check_second(row, inputs, numbers, tensors, y):
    slack = row.slack2(*numbers) if row.slack2 else 0
    gradients = mg.grad(y, tensors, mg.tensor(np.ones(y.shape, y.dtype)), create_graph=True)
    right = row.second(*numbers) if row.second else [[None] * len(tensors)] * len(tensors)
    for i, gradient in enumerate(gradients):
        if not gradient.requires_grad:
            continue
        above = mg.tensor(np.ones(gradient.shape, gradient.dtype))
        again = mg.grad(gradient, tensors, above, allow_unused=True, retain_graph=True)
        for j, (g, r) in enumerate(zip(again, right[i], strict=True)):
            r = exact(np.zeros(inputs[j].shape)) if r is None else r
            g = np.zeros(inputs[j].shape, inputs[j].dtype) if g is None else g.numpy()
            bad = wrong_places(g, r, 4 * row.ulps, slack)
            yield report(row, f"second derivative {i}, {j}", inputs, g, r, bad)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("row", [pytest.param(r, id=f"{r.operation}-{r.label}".strip("-")) for r in ROWS])
def test_special_values(row, dtype):
    with decimal.localcontext(EXACT):
        wrong = check(row, dtype)
    assert not wrong, wrong


def test_every_operation_has_a_row():
    assert {row.operation for row in ROWS} == set(OPERATIONS)
