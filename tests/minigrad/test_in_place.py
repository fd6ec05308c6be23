"""`x += y` and its like, and `x[i] = y`: what changes in place, and what stays as it is."""

import operator
import re

import numpy as np
import pytest

import minigrad as mg
import minigrad.functional as F
from minigrad import backend, nn

EVERY_DEVICE = True

SIGNS = {
    "+=": (operator.iadd, [3.0, 6.0]),
    "-=": (operator.isub, [-1.0, 2.0]),
    "*=": (operator.imul, [2.0, 8.0]),
    "/=": (operator.itruediv, [0.5, 2.0]),
    "**=": (operator.ipow, [1.0, 16.0]),
}


def leaf(*values):
    return mg.tensor(np.array(values), requires_grad=True)


@pytest.mark.parametrize("operand", ["number", "tensor", "array"])
@pytest.mark.parametrize("sign", SIGNS)
def test_a_leaf_is_changed_in_place_where_nothing_is_recorded(sign, operand):
    change, expected = SIGNS[sign]
    x = same = leaf(1.0, 4.0)
    memory = x.data
    other = {"number": 2.0, "tensor": leaf(2.0, 2.0), "array": backend.get().asarray([2.0, 2.0])}[operand]
    with mg.no_grad():
        x = change(x, other)
    assert x is same
    assert x.data is memory
    assert x.numpy().tolist() == expected
    assert (x.requires_grad, x.node, x.version) == (True, None, 1)


@pytest.mark.parametrize("sign", SIGNS)
def test_a_new_tensor_is_made_where_gradients_are_recorded(sign):
    change, expected = SIGNS[sign]
    x = leaf(1.0, 4.0)
    y = change(x, 2.0)
    assert y is not x
    assert y.node is not None
    assert x.numpy().tolist() == [1.0, 4.0]
    assert y.numpy().tolist() == expected
    (expected,) = mg.grad({"+=": x + 2.0, "-=": x, "*=": x * 2.0, "/=": x / 2.0, "**=": x * x}[sign].sum(), x)
    assert mg.grad(y.sum(), x)[0].numpy().tolist() == expected.numpy().tolist()


def test_a_product_of_matrices_in_place():
    w = same = mg.tensor([[1.0, 2.0], [3.0, 4.0]])
    with mg.no_grad():
        w @= mg.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert w is same
    assert w.numpy().tolist() == [[2.0, 1.0], [4.0, 3.0]]
    with (
        pytest.raises(ValueError, match=r"@=: expected an operand that leaves the shape \(2, 2\)"),
        mg.no_grad(),
    ):
        w @= mg.tensor([[0.0], [1.0]])


def test_gradient_descent_by_hand():
    """Two steps for (w x + b - t)^2 with x = 2, t = 1, from w = 1, b = 0."""
    model = nn.Dense(1, 1, dtype="float64")
    with mg.no_grad():
        for p, start in zip(model.parameters(), (1.0, 0.0), strict=True):
            p *= 0.0
            p += start
    weight, found = model.weight, []
    for _ in range(2):
        model.zero_grad()
        error = model(mg.tensor(np.array([[2.0]]))) - 1.0
        (error * error).sum().backward()
        with mg.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad
            model.weight -= 0.0
        found.append((model.weight.item(), model.bias.item()))
    # error 1: dw = 4, db = 2; then w = 0.6, b = -0.2, error 0 but for rounding.
    assert found == [pytest.approx((0.6, -0.2)), pytest.approx((0.6, -0.2))]
    assert model.weight is weight
    assert isinstance(model.weight, nn.Parameter)


def test_a_parameter_is_not_left_as_it_is_silently():
    model = nn.Dense(2, 1)
    p = model.weight
    for change in (operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ipow):
        with pytest.raises(RuntimeError, match=r"=: a parameter of shape \(1, 2\) .* under no_grad\(\)"):
            change(p, 2.0)
    assert p.version == model.weight.version


def test_a_total_of_losses_is_a_new_tensor():
    x, total = leaf(2.0), mg.tensor(np.array([0.0]))
    first = total
    for _ in range(3):
        total += x * x
    total.sum().backward()
    assert first.item() == 0.0
    assert total.item() == 12.0
    assert x.grad.item() == 12.0


def test_what_was_computed_is_not_changed_in_place():
    x = leaf(1.0, 4.0)
    y = before = x.sqrt()
    with mg.no_grad():
        y += 1.0
    assert before.numpy().tolist() == [1.0, 2.0]
    assert y.numpy().tolist() == [2.0, 3.0]
    assert not y.requires_grad
    before.sum().backward()
    assert x.grad.numpy().tolist() == [0.5, 0.25]


def test_a_graph_notices_a_change_in_place():
    x, w = leaf(2.0, 3.0), leaf(5.0, 7.0)
    y, z = (x * w).sum(), (x[:1] * w[:1]).sum()
    with mg.no_grad():
        x += 1.0
    for changed in (y, z):
        with pytest.raises(RuntimeError, match="changed in place"):
            changed.backward()


def test_another_name_of_a_leaf_sees_the_change():
    x = mg.tensor([1.0, 2.0])
    y, row = x, x[:1]
    with mg.no_grad():
        y += 1.0
        row *= 10.0
    assert x.numpy().tolist() == [20.0, 3.0]


@pytest.mark.parametrize("sign", SIGNS)
def test_a_shape_does_not_grow_in_place(sign):
    change, _ = SIGNS[sign]
    x = leaf(1.0, 4.0)
    with mg.no_grad(), pytest.raises(ValueError, match=rf"{re.escape(sign)}: .*\(2,\) .* makes it \(3, 2\)"):
        change(x, mg.tensor(np.ones((3, 1))))
    assert x.numpy().tolist() == [1.0, 4.0]
    assert x.version == 0


def test_a_dtype_stays_in_place():
    i, x = mg.tensor(np.arange(3)), mg.tensor([1.0])
    with mg.no_grad():
        i += 1
        i *= mg.tensor(np.array([2, 2, 2]))
        assert i.numpy().tolist() == [2, 4, 6]
        with pytest.raises(TypeError, match=r"\+=: the result is float32, and the tensor .* int64"):
            i += 0.5
        with pytest.raises(TypeError, match="float32 and float64 tensors do not mix"):
            x += mg.tensor(np.array([1.0]))
    assert i.numpy().tolist() == [2, 4, 6]
    assert x.item() == 1.0


def test_elements_that_share_memory_are_not_changed():
    x = mg.tensor([1.0])
    wide = F.broadcast_to(x, (3,))
    with mg.no_grad():
        with pytest.raises(ValueError, match=r"\+=: the tensor of shape \(3,\) can't be changed in place"):
            wide += 1.0
        with pytest.raises(ValueError, match=r"x\[i\] = .*can't be changed in place"):
            wide[0] = 1.0
    assert x.item() == 1.0


@pytest.mark.cpu_only("only NumPy's arrays can be read-only")
def test_a_read_only_array_is_not_changed():
    array = np.ones(2)
    array.flags.writeable = False
    x = mg.Tensor(array)
    with mg.no_grad(), pytest.raises(ValueError, match="its memory is read-only"):
        x *= 2.0
    assert x.version == 0


def test_elements_are_assigned_under_no_grad():
    x = leaf(1.0, 2.0, 3.0)
    y = (x * x).sum()
    with mg.no_grad():
        x[0] = 5.0
        x[1:] = mg.tensor(np.array([6.0, 7.0]))
        x[mg.tensor(np.array([False, False, True]))] = 8
        x[0] += 1.0
        x[mg.tensor(np.array([1]))] = backend.get().asarray([9.0])
    assert x.numpy().tolist() == [6.0, 9.0, 8.0]
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()
    table = mg.tensor(np.zeros((2, 2), np.int64))
    with mg.no_grad():
        table[:, 1] = 3
        table[0, 0] = mg.tensor(np.array(4))
    assert table.version == 2  # each counts, in memory of any size and on any device
    assert table.numpy().tolist() == [[4, 3], [0, 3]]


def test_elements_are_not_assigned_otherwise():
    x = leaf(1.0, 2.0)
    plain = mg.tensor([1.0, 2.0])
    for tensor in (x, x * 2.0, plain):
        with pytest.raises(RuntimeError, match=r"x\[i\] = .* where\(\) .* under no_grad\(\)"):
            tensor[0] = 5.0
        with pytest.raises(RuntimeError, match=r"x\[i\] = "):
            tensor[0] += 5.0
    y = x * 2.0
    integers = mg.tensor(np.arange(3))
    with mg.no_grad():
        with pytest.raises(RuntimeError, match=r"x\[i\] = "):
            y[0] = 5.0
        with pytest.raises(ValueError, match=r"values of shape \(3,\) do not fit a place of shape \(2,\)"):
            x[:] = mg.tensor(np.ones(3))
        with pytest.raises(TypeError, match=r"float32 values for a float64 tensor"):
            x[0] = mg.tensor(1.0)
        with pytest.raises(TypeError, match=r"float values for a int64 tensor"):
            integers[0] = 0.5
        with pytest.raises(TypeError, match="expected a tensor, a number or an array"):
            x[0] = None
        with pytest.raises(IndexError):
            x[5] = 1.0
    assert x.numpy().tolist() == plain.numpy().tolist() == [1.0, 2.0]


def test_a_tensor_without_elements_is_changed_in_place_too():
    x = same = mg.tensor(np.ones((0, 3)))
    with mg.no_grad():
        x *= 2
    assert x is same
    assert x.shape == (0, 3)


def test_an_assignment_that_overflows_gives_infinity_whatever_numpy_was_told():
    x = mg.tensor(np.zeros(2, np.float32))
    with np.errstate(all="raise"), mg.no_grad():
        x[0] = 1e300
    assert x.numpy().tolist() == [np.inf, 0.0]
