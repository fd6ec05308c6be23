"""Every operation, on all of its cases: values, gradients of both orders, and planted mistakes."""

import numpy as np
import pytest
from accuracy import assert_close

import minigrad as mg
from minigrad import naive
from minigrad.gradcheck.check import check_second_order
from minigrad.ops import OPERATIONS
from minigrad.tensor import is_grad_enabled

EVERY_DEVICE = True

CASES = [
    pytest.param(operation, case, id=f"{name}-{case.label or 'plain'}")
    for name, operation in OPERATIONS.items()
    for case in operation.cases()
]
SECOND_ORDER = [p for p in CASES if p.values[1].second_order]
# The convolutions' other geometries go through the same rules, and take longer.
PLANTED_AT_SECOND_ORDER = [
    p for p in SECOND_ORDER if not p.id.startswith("convolve") or p.id.endswith(("-plain", "-output_padding"))
]
FLAT = [p for p in CASES if not p.values[1].second_order]


def tensors(case, dtype="float64", requires_grad=True):
    arrays = case.inputs(np.random.default_rng(7))
    return [mg.tensor(np.asarray(a), dtype, requires_grad=requires_grad) for a in arrays]


def oracle(operation, case, inputs):
    reference = case.reference or getattr(naive, operation.name)
    return np.asarray(reference(*(t.numpy().astype(np.float64) for t in inputs)))


def plant(patch, operation, position, active=lambda: True):
    """Make gradient `position` of the operation wrong by 1% in one channel, the one where it is largest.

    Gives a list that is filled as soon as that has changed anything.
    """
    right = operation.backward
    touched = []

    def wrong(self, dy):
        gradients = list(right(self, dy))
        gradient = gradients[position] if position < len(gradients) else None
        used = gradient is not None and self.needs[position] and active()
        if used and gradient.numpy().any():
            gradients[position] = gradient * mg.tensor(one_channel_wrong(gradient.numpy()))
            touched.append(operation)
        return tuple(gradients)

    patch.setattr(operation, "backward", wrong)
    return touched


def one_channel_wrong(gradient):
    factor = np.ones(gradient.shape)
    axis = min(1, gradient.ndim - 1)
    if axis < 0:
        return factor * 1.01
    others = tuple(i for i in range(gradient.ndim) if i != axis)
    channel = int(np.abs(gradient).sum(axis=others).argmax())
    factor[(slice(None),) * axis + (channel,)] = 1.01
    return factor


def second_pass():
    return not is_grad_enabled()


def reached_in_second_pass(patch, case, inputs):
    """The operations and gradients that the derivative of the gradients goes through."""
    reached = set()
    for operation in OPERATIONS.values():
        for position in range(3):
            with patch.context() as inner:
                touched = plant(inner, operation, position, second_pass)
                derivatives(case, inputs)
                if touched:
                    reached.add((operation, position))
    return sorted(reached, key=lambda pair: (pair[0].name, pair[1]))


def derivatives(case, inputs):
    """The gradients of the gradients, with respect to the inputs and to what comes from above."""
    y = case.call(*inputs)
    above = mg.tensor(np.asarray(np.random.default_rng(5).standard_normal(y.shape)), requires_grad=True)
    gradients = mg.grad(y, inputs, above, create_graph=True)
    weights = [mg.tensor(np.asarray(np.random.default_rng(6).standard_normal(g.shape))) for g in gradients]
    return mg.grad(gradients, [*inputs, above], weights, allow_unused=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("operation", "case"), CASES)
def test_values_agree_with_the_naive_definition(operation, case, dtype):
    inputs = tensors(case, dtype, requires_grad=False)
    if operation.name == "cast":
        dtype = "float64"
    assert_close(case.call(*inputs).numpy(), oracle(operation, case, inputs), dtype)


@pytest.mark.parametrize(("operation", "case"), CASES)
def test_gradients_agree_with_differences(operation, case):
    assert mg.gradcheck(case.call, tensors(case))


@pytest.mark.parametrize(("operation", "case"), CASES)
def test_second_order_gradients_agree_with_differences(operation, case):
    assert mg.gradcheck(case.call, tensors(case), order=2)


@pytest.mark.parametrize(("operation", "case"), CASES)
def test_float32_gradients_agree_with_float64(operation, case):
    if operation.name == "cast":
        return assert_float32_cast()
    rng = np.random.default_rng(3)
    single = tensors(case, "float32")
    double = [mg.tensor(t.numpy().astype(np.float64), requires_grad=True) for t in single]
    y = case.call(*single)
    above = np.asarray(rng.standard_normal(y.shape), np.float32)
    found = mg.grad(y, single, mg.tensor(above))
    expected = mg.grad(case.call(*double), double, mg.tensor(above.astype(np.float64)))
    for g, e in zip(found, expected, strict=True):
        assert_close(g.numpy(), e.numpy(), "float32")
    return None


def assert_float32_cast():
    x = mg.tensor([1.5, -2.0], requires_grad=True)
    (x.to("float64") * mg.tensor(np.array([2.0, 3.0]))).sum().backward()
    assert x.grad.numpy().tolist() == [2.0, 3.0]
    assert x.grad.dtype == "float32"


@pytest.mark.parametrize(("operation", "case"), CASES)
def test_the_fused_backward_equals_the_differentiable_one(operation, case):
    inputs = tensors(case)
    y = case.call(*inputs)
    above = mg.tensor(np.asarray(np.random.default_rng(5).standard_normal(y.shape)))
    fused = mg.grad(y, inputs, above, retain_graph=True)
    recorded = mg.grad(y, inputs, above, create_graph=True)
    for a, b in zip(fused, recorded, strict=True):
        assert_close(a.numpy(), b.numpy())


@pytest.mark.parametrize(("operation", "case"), CASES)
def test_a_planted_mistake_is_caught(monkeypatch, operation, case):
    caught = 0
    for position in range(3):
        with monkeypatch.context() as patch:
            touched = plant(patch, operation, position)
            try:
                mg.gradcheck(case.call, tensors(case))
            except mg.GradcheckError:
                caught += 1
                assert touched
            else:
                assert not touched, f"a mistake in gradient {position} went unnoticed"
    assert caught


@pytest.mark.parametrize(("operation", "case"), PLANTED_AT_SECOND_ORDER)
def test_a_mistake_planted_at_second_order_is_caught(monkeypatch, operation, case):
    """In each rule that the second derivative goes through, and in the second pass alone."""
    inputs = tensors(case)
    reached = reached_in_second_pass(monkeypatch, case, inputs)
    assert reached
    for other, position in reached:
        with monkeypatch.context() as patch:
            plant(patch, other, position, second_pass)
            with pytest.raises(mg.GradcheckError):
                check_second_order(case.call, inputs, np.random.default_rng(1))


@pytest.mark.parametrize(("operation", "case"), FLAT)
def test_what_is_said_to_be_flat_has_no_second_derivative(operation, case):
    inputs = tensors(case)
    y = case.call(*inputs)
    above = mg.tensor(np.asarray(np.random.default_rng(5).standard_normal(y.shape)))
    gradients = mg.grad(y, inputs, above, create_graph=True)
    total = sum(((g * g).sum() for g in gradients), mg.tensor(np.zeros(())))
    assert total.item() > 0
    for g, x in zip(mg.grad(total, inputs), inputs, strict=True):
        assert (g.shape, g.dtype) == (x.shape, x.dtype)
        assert not g.numpy().any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", [(700, 300), (300, 700), (1, 5), (5, 1), (0, 3)])
def test_a_column_times_a_row(default_device, sizes, dtype):
    m, n = sizes
    rng = np.random.default_rng(6)
    column, row = rng.standard_normal((m, 1)).astype(dtype), rng.standard_normal((1, n)).astype(dtype)
    y = (mg.tensor(column) @ mg.tensor(row)).numpy()
    assert np.array_equal(y, [[a * b for b in row[0]] for a in column[:, 0]] if m else np.empty((0, n)))
