"""Tensors and the graph: what is recorded, how gradients flow back through it, and when it is freed."""

import gc
import operator
import re
import threading
import weakref
from contextlib import contextmanager

import numpy as np
import pytest

import minigrad as mg
import minigrad.functional as F
from minigrad import backend, nn, optim
from minigrad.ops import OPERATIONS

EVERY_DEVICE = True

SINGLE, DOUBLE = np.dtype("float32"), np.dtype("float64")


def array(values, dtype="float64"):
    """Values as an array of the default device."""
    return backend.get().asarray(values, dtype)


def leaf(*values):
    """A float64 leaf that requires a gradient."""
    return mg.tensor(np.array(values), requires_grad=True)


def scalar_leaf(value):
    return mg.tensor(np.array(value), requires_grad=True)


# -- making tensors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, "float32"),
        (3, "float32"),
        (True, "float32"),
        ([[1, 2], [3, 4]], "float32"),
        (np.zeros(3), "float64"),
        (np.zeros(3, np.float32), "float32"),
        (np.arange(3), "int64"),
        (np.arange(3, dtype=np.uint8), "uint8"),
        (np.array([True]), "bool"),
    ],
    ids=lambda v: v if isinstance(v, str) else repr(v).replace("\n", ""),
)
def test_arrays_keep_their_dtype_and_numbers_become_float32(data, dtype, default_device):
    t = mg.tensor(data)
    assert t.dtype == dtype
    assert t.numpy().tolist() == np.asarray(data).tolist()
    assert (t.shape, t.ndim, t.size) == (np.shape(data), np.ndim(data), np.size(data))
    assert t.device == default_device


@pytest.mark.parametrize("data", [1.5, [1.0, 2.0], np.arange(3), np.zeros(3, np.float32)], ids=repr)
def test_a_named_dtype_wins(data):
    assert mg.tensor(data, "float64").dtype == DOUBLE
    assert mg.tensor(data, dtype=np.float32).dtype == SINGLE


def test_a_double_is_read_into_float64_unrounded():
    assert mg.tensor(0.1, "float64").item() == 0.1
    assert mg.tensor(0.1).item() == float(np.float32(0.1))


def test_tensor_copies_and_the_class_does_not():
    source = array([0.0, 0.0, 0.0])
    copied, wrapped = mg.tensor(source), mg.Tensor(source)
    source[0] = 5.0
    assert copied.numpy()[0] == 0.0
    assert wrapped.numpy()[0] == 5.0


def test_a_tensor_of_a_tensor_is_a_new_leaf():
    x = leaf(1.0, 2.0)
    copy = mg.tensor(x * 2)
    assert not copy.requires_grad
    assert copy.numpy().tolist() == [2.0, 4.0]
    assert mg.tensor(x, requires_grad=True).data is not x.data


@pytest.mark.parametrize(
    "data",
    [
        np.zeros(2, np.float16),
        np.zeros(2, complex),
        np.array(["a"]),
        np.array([None]),
        [[1, 2], [3]],
        {},
        "a",
        None,
    ],
    ids=repr,
)
def test_what_is_no_number_is_refused(data):
    with pytest.raises(TypeError, match="tensor: expected"):
        mg.tensor(data)


def test_the_class_takes_arrays_only():
    with pytest.raises(TypeError, match=r"Tensor: expected an array, got list; minigrad\.tensor"):
        mg.Tensor([1.0])


def test_an_unknown_device_is_named():
    with pytest.raises(ValueError, match=r"unknown device 'tpu': expected one of .*'cpu'"):
        mg.tensor(1.0, device="tpu")
    with pytest.raises(ValueError, match=r"expected a device \(cpu, gpu\) or a dtype .*got 'tpu'"):
        mg.tensor(1.0).to("tpu")


def test_integers_have_no_gradient():
    with pytest.raises(TypeError, match="only float32 and float64 have gradients, not int64"):
        mg.tensor(np.arange(3), requires_grad=True)
    counts = mg.tensor(np.arange(3))
    with pytest.raises(TypeError, match="not int64"):
        counts.requires_grad = True
    assert not counts.requires_grad


def test_a_cast_to_integers_ends_the_graph():
    assert not leaf(1.5).to("int64").requires_grad


def test_what_was_computed_cannot_stop_to_require_a_gradient():
    x = leaf(1.0)
    with pytest.raises(RuntimeError, match=r"use detach\(\)"):
        (x * 2).requires_grad = False
    x.requires_grad = False
    assert not (x * 2).requires_grad


# -- what comes in -----------------------------------------------------------------------------------


class Labelled(np.ndarray):
    """An array whose sums are something else."""

    def sum(self, *args, **kwargs):
        return "no sum"


SUBCLASSES = [np.matrix, lambda values: np.array(values).view(Labelled)]
MATRIX = [[1.0, 2.0], [3.0, 4.0]]
NO_NUMPY_ON_GPU = "arrays of the host are operands of the CPU's tensors only"


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize(
    "kind", [np.matrix, lambda a: np.array(a).view(Labelled)], ids=["matrix", "subclass"]
)
def test_a_subclass_of_arrays_is_an_array(kind):
    x = mg.tensor(kind(MATRIX))
    assert type(x.numpy()) is np.ndarray
    assert (x * x).numpy().tolist() == [[1.0, 4.0], [9.0, 16.0]]
    assert (x**2).numpy().tolist() == [[1.0, 4.0], [9.0, 16.0]]
    assert x.sum(axis=1).shape == (2,)
    assert x[0].shape == (2,)
    assert x.reshape(4).shape == (4,)
    assert mg.tensor([kind(MATRIX), kind(MATRIX)]).shape == (2, 2, 2)


@pytest.mark.cpu_only(NO_NUMPY_ON_GPU)
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize(
    "kind", [np.matrix, lambda a: np.array(a).view(Labelled)], ids=["matrix", "subclass"]
)
def test_a_subclass_of_arrays_is_an_array_at_every_entrance(kind):
    source = kind(MATRIX)
    x, wrapped, assigned = mg.tensor(MATRIX, "float64"), mg.Tensor(source), mg.tensor(np.zeros((2, 2)))
    assigned.data = source
    for t in (wrapped, assigned):
        assert type(t.data) is np.ndarray
        assert (t * t).numpy().tolist() == [[1.0, 4.0], [9.0, 16.0]]
    source[0, 0] = 5.0  # it is not copied
    assert wrapped.numpy()[0, 0] == assigned.numpy()[0, 0] == 5.0
    source[0, 0] = 1.0
    for product in (x * source, source * x, mg.where(kind(MATRIX) > 1.5, x, 1.0) * x):
        assert type(product.numpy()) is np.ndarray
        assert product.numpy().tolist() == [[1.0, 4.0], [9.0, 16.0]]
    assert (x == source).numpy().all()
    assert (source == x).numpy().all()
    assert mg.maximum(x, source).sum(axis=0).shape == (2,)


MASKED = np.ma.array([1.0, 2.0], mask=[False, True])
MASKED_ENTRANCES = {
    "tensor": lambda x: mg.tensor(MASKED),
    "tensor of a list": lambda x: mg.tensor([[1.0, 2.0], MASKED]),
    "the masked constant": lambda x: mg.tensor(np.ma.masked),
    "a masked constant in a list": lambda x: mg.tensor([1.0, np.ma.masked]),
    "multiply": lambda x: x * MASKED,
    "multiply from the left": lambda x: MASKED * x,
    "add a masked constant": lambda x: x + np.ma.masked,
    "maximum": lambda x: mg.maximum(x, MASKED),
    "compare": lambda x: x == MASKED,
    "less": lambda x: x < MASKED,
    "where": lambda x: mg.where(MASKED > 1, x, 0.0),
    "index": lambda x: x[np.ma.array([0, 1], mask=[0, 1])],
    "index of several": lambda x: x[np.ma.array([0, 1], mask=[0, 1]), ...],
    "clip": lambda x: x.clip(np.ma.masked, 1.0),
    "labels": lambda x: F.cross_entropy(x.reshape(1, 2), np.ma.array([0], mask=[True])),
    "state": lambda x: nn.Dense(2, 1, bias=False, dtype="float64").load_state_dict({"weight": MASKED[None]}),
}


@pytest.mark.parametrize("name", MASKED_ENTRANCES)
def test_masked_arrays_are_refused(name):
    with pytest.raises(TypeError, match=r"got a MaskedArray: .* with \.filled\(value\)"):
        MASKED_ENTRANCES[name](leaf(1.0, 2.0))


# -- what goes out ---------------------------------------------------------------------------------

SHARED = "NumPy's functions take the CPU's tensors only"


@pytest.mark.cpu_only(SHARED)
def test_numpys_functions_take_the_values():
    x, y = mg.tensor([[1.0, 2.0], [3.0, 4.0]]), mg.tensor([[5.0, 6.0], [7.0, 8.0]])
    for found, expected in (
        (np.asarray(x), [[1.0, 2.0], [3.0, 4.0]]),
        (np.array(x), [[1.0, 2.0], [3.0, 4.0]]),
        (np.stack([x, y], axis=2), [[[1.0, 5.0], [2.0, 6.0]], [[3.0, 7.0], [4.0, 8.0]]]),
        (np.concatenate([x, y]), [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]),
        (np.mean(x), 2.5),
        (np.sum(x, axis=0), [4.0, 6.0]),
        (np.max(x), 4.0),
        (np.transpose(x), [[1.0, 3.0], [2.0, 4.0]]),
        (np.where([[True, False]], x, y), [[1.0, 6.0], [3.0, 8.0]]),
        (np.asarray([x, y]), [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]),
        (np.asarray(x[0, 1]), 2.0),
    ):
        assert found.dtype == SINGLE
        assert found.tolist() == expected
    assert np.asarray(mg.tensor(np.arange(3))).dtype == "int64"
    np.testing.assert_array_equal(x, [[1.0, 2.0], [3.0, 4.0]])
    out = np.zeros((2, 2), np.float32)
    np.concatenate([x[:1], y[:1]], out=out)
    assert out.tolist() == [[1.0, 2.0], [5.0, 6.0]]
    with pytest.raises(TypeError, match="__array_ufunc__=None"):
        np.sin(x)


@pytest.mark.cpu_only(SHARED)
def test_an_array_of_a_tensor_is_its_memory_unless_a_copy_is_asked_for():
    x = mg.tensor([1.0, 2.0])
    assert np.asarray(x) is x.data
    assert np.asarray(x, copy=False) is x.data
    assert np.asarray(x, dtype="float32", copy=False) is x.data
    for copied in (np.array(x), np.asarray(x, copy=True), np.asarray(x, dtype="float64")):
        assert not np.may_share_memory(copied, x.data)
        assert copied.tolist() == [1.0, 2.0]
    assert np.asarray(x, dtype="float64").dtype == DOUBLE
    with pytest.raises(ValueError, match="float32 tensor can't become an array of dtype .* without a copy"):
        np.asarray(x, dtype="float64", copy=False)


def test_a_tensor_that_requires_a_gradient_is_no_array_of_numpys():
    for x in (leaf(1.0), leaf(1.0) * 2.0):
        for function in (np.asarray, np.mean, lambda x: np.stack([x, x])):
            with pytest.raises(TypeError, match=r"this tensor requires one: pass x\.detach\(\)"):
                function(x)
        assert (np.shape(x), np.ndim(x), np.size(x)) == ((1,), 1, 1)


def test_a_tensor_of_a_gpu_is_no_array_of_numpys(default_device):
    x = mg.tensor([1.0])
    if default_device == "cpu":
        assert np.asarray(x).tolist() == [1.0]
        return
    for function in (np.asarray, np.mean, lambda x: np.stack([x, x])):
        with pytest.raises(TypeError, match=r"can't read a tensor on 'gpu': pass x\.numpy\(\)"):
            function(x)


@pytest.mark.cpu_only(SHARED)
def test_a_list_of_tensors_is_one_of_arrays():
    x, y = mg.tensor([1.0, 2.0]), mg.tensor([3.0, 4.0])
    assert mg.tensor([x, y]).numpy().tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert mg.tensor([x.sum(), 1.0, y[0]]).numpy().tolist() == [3.0, 1.0, 3.0]
    with pytest.raises(TypeError, match="numbers in lists of equal length"):
        mg.tensor([x, y[:1]])


def test_a_list_of_tensors_with_gradients_is_refused():
    x = leaf(1.0, 2.0)
    for given in ([x, x], [1.0, x[0]], [[x]]):
        with pytest.raises(TypeError, match=r"tensor: the list holds .* minigrad\.stack"):
            mg.tensor(given)


def test_tensors_of_one_element_are_numbers():
    three, seven = mg.tensor(np.array(3)), mg.tensor(np.array([[7]], np.uint8))
    assert [10, 20, 30, 40][three] == 40
    assert list(range(three)) == [0, 1, 2]
    assert operator.index(seven) == 7
    assert (int(three), int(leaf(2.75)), int(mg.tensor([-1.5])), int(mg.tensor(np.array(True)))) == (
        3,
        2,
        -1,
        1,
    )
    assert type(int(three)) is type(operator.index(seven)) is int
    assert round(float(leaf(2.75)), 1) == 2.8
    for wrong in (mg.tensor(3.0), mg.tensor(np.arange(2)), mg.tensor(np.array(True))):
        with pytest.raises(TypeError, match="expected an integer tensor of one element as an index"):
            operator.index(wrong)
    with pytest.raises(ValueError, match="expected one element"):
        int(mg.tensor([1.0, 2.0]))


@pytest.mark.cpu_only("on a GPU an array of the host is refused already")
def test_masked_arrays_are_refused_by_the_class_and_by_data():
    x = leaf(1.0, 2.0)
    with pytest.raises(TypeError, match=r"\.filled\(value\)"):
        mg.Tensor(MASKED)
    with pytest.raises(TypeError, match=r"\.filled\(value\)"):
        x.data = MASKED
    assert x.numpy().tolist() == [1.0, 2.0]


@pytest.mark.parametrize("data", [2.0, np.arange(3), np.ones(3, bool), np.ones(3), np.ones(3, np.float32)])
def test_to_none_is_to_the_default_dtype(data):
    assert mg.tensor(data, "float64" if isinstance(data, float) else None).to(None).dtype == SINGLE
    x = leaf(1.0, 2.0)
    x.to(None).sum().backward()
    assert x.grad.dtype == DOUBLE


# -- operands ----------------------------------------------------------------------------------------

SCALARS = [2, 2.0, True, np.float64(2), np.float32(2), np.int64(2), np.uint8(2), np.array(2.0), np.array(2)]
ARITHMETIC = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "**": lambda a, b: a**b,
}


@pytest.mark.parametrize("sign", ARITHMETIC)
@pytest.mark.parametrize("scalar", SCALARS, ids=lambda s: f"{type(s).__name__}-{s}")
@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE], ids=str)
def test_scalars_follow_the_tensor(dtype, scalar, sign):
    calculate = ARITHMETIC[sign]
    x = mg.tensor([1.0, 2.0, 4.0], dtype, requires_grad=True)
    for result, expected in (
        (calculate(x, scalar), calculate(np.array([1.0, 2.0, 4.0]), float(scalar))),
        (calculate(scalar, x), calculate(float(scalar), np.array([1.0, 2.0, 4.0]))),
    ):
        assert isinstance(result, mg.Tensor)
        assert result.dtype == dtype
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-6)
        assert mg.grad(result.sum(), x)[0].dtype == dtype


@pytest.mark.parametrize(
    "scalar", [2, 0.5, np.float64(0.5), np.float32(0.5)], ids=lambda s: f"{type(s).__name__}"
)
def test_scalars_follow_the_tensor_in_functions_too(scalar):
    x = mg.tensor([1.0, -2.0])
    assert mg.maximum(x, scalar).dtype == SINGLE
    assert mg.maximum(scalar, x).dtype == SINGLE
    assert mg.where([True, False], x, scalar).dtype == SINGLE
    assert x.clip(-scalar, scalar).dtype == SINGLE
    assert F.binary_cross_entropy_with_logits(x, scalar * 0 + 1).dtype == SINGLE


def test_float32_and_float64_do_not_mix():
    single, double = mg.tensor([1.0]), mg.tensor(np.array([1.0]))
    for calculate in ARITHMETIC.values():
        with pytest.raises(
            TypeError, match=r"float32 and float64 tensors do not mix: convert one with \.to\(dtype\)"
        ):
            calculate(single, double)
    with pytest.raises(TypeError, match="multiply: float32 and float64"):
        single * array([1.0])
    with pytest.raises(TypeError, match="matmul: float64 and float32"):
        mg.tensor(np.eye(2)) @ mg.tensor([[1.0], [2.0]])
    assert (single.to("float64") * double).dtype == DOUBLE


@pytest.mark.parametrize("sign", ARITHMETIC)
def test_arrays_are_operands_on_either_side(sign):
    calculate = ARITHMETIC[sign]
    column, values = np.array([[1.0], [2.0]]), np.array([3.0, 4.0, 5.0])
    x = leaf(*values)
    for result, expected in (
        (calculate(array(column), x), calculate(column, values)),
        (calculate(x, array(column)), calculate(values, column)),
    ):
        assert isinstance(result, mg.Tensor)
        assert result.requires_grad
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-14)


def test_an_array_times_a_tensor_has_the_tensors_gradient():
    x = leaf(1.0, 2.0)
    (array([[3.0, 4.0], [5.0, 6.0]]) * x).sum().backward()
    assert x.grad.numpy().tolist() == [8.0, 10.0]
    y = array([[3.0, 4.0], [5.0, 6.0]]) @ x
    assert isinstance(y, mg.Tensor)
    assert y.numpy().tolist() == [11.0, 17.0]


@pytest.mark.parametrize("operand", [None, "1", [1.0], object()], ids=lambda v: type(v).__name__)
def test_other_operands_are_refused_by_name(operand):
    with pytest.raises(
        TypeError, match=rf"add: expected a tensor, a number or an array .*{type(operand).__name__}"
    ):
        mg.tensor([1.0]) + operand


def test_shapes_that_do_not_broadcast_are_both_named():
    with pytest.raises(ValueError, match=r"multiply: shapes \(2,\) and \(3,\) do not broadcast"):
        mg.tensor([1.0, 2.0]) * mg.tensor([1.0, 2.0, 3.0])


# -- comparisons, iteration, text --------------------------------------------------------------------


def test_comparisons_are_boolean_and_have_no_gradient():
    x, y = leaf(1.0, 2.0, 3.0), leaf(3.0, 2.0, 1.0)
    for result, expected in (
        (x == y, [False, True, False]),
        (x != y, [True, False, True]),
        (x < y, [True, False, False]),
        (x <= y, [True, True, False]),
        (x > 1.5, [False, True, True]),
        (x <= 2, [True, True, False]),
        (array([0.0, 2.0, 9.0]) > x, [False, False, True]),
        (array([0.0, 2.0, 9.0]) == x, [False, True, False]),
    ):
        assert isinstance(result, mg.Tensor)
        assert result.dtype == bool
        assert not result.requires_grad
        assert result.numpy().tolist() == expected


def test_comparisons_with_what_is_no_number():
    x = mg.tensor([1.0, 2.0])
    assert (x == None) is False  # noqa: E711
    assert (x != None) is True  # noqa: E711
    assert (x == "text") is False
    with pytest.raises(TypeError, match="not supported"):
        _ = x < None


def test_tensors_are_keys_by_identity():
    x, y = mg.tensor(1.0), mg.tensor(1.0)
    assert {x: "x", y: "y"}[y] == "y"
    assert len({x, y, x}) == 2


def test_iteration_gives_the_rows_with_their_gradients():
    x = mg.tensor(np.arange(6.0).reshape(3, 2), requires_grad=True)
    rows = list(x)
    assert [r.numpy().tolist() for r in rows] == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    (rows[2] * 3).sum().backward()
    assert x.grad.numpy().tolist() == [[0.0, 0.0], [0.0, 0.0], [3.0, 3.0]]
    assert len(x) == 3


def test_a_tensor_without_axes_has_no_length_and_no_rows():
    with pytest.raises(TypeError, match="without axes"):
        len(mg.tensor(1.0))
    with pytest.raises(TypeError, match="without axes"):
        iter(mg.tensor(1.0))


def test_repr_shows_values_dtype_and_where_it_comes_from(default_device):
    where = {"cpu": "", "gpu": ", device='gpu'"}[default_device]
    x = mg.tensor([1.0, 2.5], requires_grad=True)
    assert repr(x) == f"tensor([1. , 2.5], dtype=float32{where}, requires_grad=True)"
    assert repr(x * 2) == f"tensor([2., 5.], dtype=float32{where}, made by multiply)"
    assert repr(x.detach()) == f"tensor([1. , 2.5], dtype=float32{where})"
    assert repr(mg.tensor(np.array(3.0))) == f"tensor(3.{where})"


def test_one_element_becomes_a_python_number():
    assert mg.tensor([[2.5]]).item() == 2.5
    assert type(mg.tensor(2.5).item()) is float
    assert type(mg.tensor(np.array(3)).item()) is int
    assert float(leaf(2.5)) == 2.5
    assert f"{leaf(2.5):.2f}" == "2.50"
    assert f"{mg.tensor([1.0, 2.0])}" == repr(mg.tensor([1.0, 2.0]))
    assert bool(mg.tensor([1.0]))
    assert not mg.tensor(0.0)


def test_several_elements_are_no_number_and_no_truth():
    x = mg.tensor([1.0, 2.0])
    with pytest.raises(ValueError, match=r"item: expected one element, got shape \(2,\)"):
        x.item()
    with pytest.raises(ValueError, match="expected one element"):
        float(x)
    with pytest.raises(ValueError, match=r"shape \(2,\) is neither true nor false"):
        bool(x)
    with pytest.raises(ValueError, match=r"shape \(0,\)"):
        bool(mg.tensor([]))


# -- the array behind ----------------------------------------------------------------------------------


def test_detach_shares_memory_and_cuts_the_graph():
    x = leaf(1.0, 2.0)
    y = x * 2
    cut = y.detach()
    assert cut.data is y.data
    assert not cut.requires_grad
    (cut * x).sum().backward()
    assert x.grad.numpy().tolist() == [2.0, 4.0]


@pytest.mark.cpu_only("NumPy's memory is the CPU's; from a GPU numpy() copies")
def test_numpy_gives_the_memory_itself():
    x = leaf(1.0)
    x.numpy()[0] = 7.0
    assert x.item() == 7.0


def test_data_takes_an_array_of_its_own_kind_only(default_device):
    x = mg.tensor([1.0, 2.0])
    with pytest.raises(ValueError, match=r"data: expected float32 of shape \(2,\), got float32 of \(3,\)"):
        x.data = array([0.0, 0.0, 0.0], "float32")
    with pytest.raises(ValueError, match=r"data: expected float32 of shape \(2,\), got float64 of \(2,\)"):
        x.data = array([0.0, 0.0])
    for wrong in ([1.0, 2.0], 1.0, mg.tensor([1.0, 2.0])):
        message = f"data: expected an array on '{default_device}', got {type(wrong).__name__}"
        with pytest.raises(TypeError, match=message):
            x.data = wrong
    assert x.numpy().tolist() == [1.0, 2.0]
    new = array([3.0, 4.0], "float32")
    x.data = new
    assert x.data is new


@pytest.mark.parametrize("shape", [(3, 1), (1,), (3,), (1, 3, 1), ()])
def test_a_gradient_of_another_shape_is_refused(shape):
    weight = nn.Dense(3, 1).weight
    weight.grad = kept = mg.tensor([[1.0, 2.0, 3.0]])
    with pytest.raises(
        ValueError, match=rf"grad: expected float32 of shape \(1, 3\) .* of {re.escape(str(shape))}"
    ):
        weight.grad = mg.tensor(np.zeros(shape, np.float32))
    assert weight.grad is kept
    weight.grad = None
    assert weight.grad is None


@pytest.mark.parametrize("given", [1.0, np.zeros((1, 3), np.float32), [[1.0, 2.0, 3.0]], False], ids=repr)
def test_a_gradient_that_is_no_tensor_is_refused(given):
    weight = nn.Dense(3, 1).weight
    with pytest.raises(
        TypeError, match=rf"grad: expected None or a Tensor .*\(1, 3\), got {type(given).__name__}"
    ):
        weight.grad = given
    assert weight.grad is None


def test_a_gradient_of_another_dtype_or_device_is_refused(default_device):
    weight = nn.Dense(3, 1).weight
    with pytest.raises(ValueError, match=r"grad: expected float32 of shape .*got float64"):
        weight.grad = mg.tensor(np.zeros((1, 3)))
    if default_device != "cpu":
        with pytest.raises(ValueError, match="on 'gpu', as of the tensor; got .* on 'cpu'"):
            weight.grad = mg.tensor([[1.0, 2.0, 3.0]], device="cpu")


# -- recording or not ----------------------------------------------------------------------------------


def test_no_grad_records_nothing_and_enable_grad_records_inside_it():
    x = leaf(1.0)
    with mg.no_grad():
        assert not mg.is_grad_enabled()
        assert not (x * 2).requires_grad
        with mg.enable_grad():
            assert mg.is_grad_enabled()
            assert (x * 2).requires_grad
            with mg.no_grad():
                assert not (x * 2).requires_grad
            assert (x * 2).requires_grad
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad


def test_no_grad_leaves_leaves_alone():
    with mg.no_grad():
        x = leaf(3.0)
    assert x.requires_grad
    (x * x).backward()
    assert x.grad.item() == 6.0


def test_no_grad_ends_with_an_exception():
    with pytest.raises(KeyError), mg.no_grad():
        raise KeyError
    assert mg.is_grad_enabled()


def test_no_grad_and_enable_grad_are_decorators():
    @mg.no_grad()
    def quiet(x):
        return x * 2, loud(x)

    @mg.enable_grad()
    def loud(x):
        return x * 3

    for _ in range(2):
        doubled, tripled = quiet(leaf(1.0))
        assert not doubled.requires_grad
        assert tripled.requires_grad
        assert mg.is_grad_enabled()


def test_no_grad_is_for_its_own_thread():
    seen = []
    with mg.no_grad():
        worker = threading.Thread(target=lambda: seen.append((leaf(1.0) * 2).requires_grad))
        worker.start()
        worker.join()
        assert not mg.is_grad_enabled()
    assert seen == [True]


# -- backward --------------------------------------------------------------------------------------------


def test_backward_needs_one_element_or_a_start():
    x = leaf(1.0, 2.0)
    with pytest.raises(
        RuntimeError, match=r"shape \(2,\) needs a starting gradient .* \.sum\(\) or \.mean\(\)"
    ):
        (x * 2).backward()
    assert x.grad is None
    (x * 2).backward(mg.tensor(np.array([1.0, 10.0])))
    assert x.grad.numpy().tolist() == [2.0, 20.0]


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_element_of_any_shape_starts_with_one(shape):
    x = mg.tensor(np.full(shape, 3.0), requires_grad=True)
    (x * x).backward()
    assert x.grad.shape == shape
    assert x.grad.item() == 6.0


def test_backward_of_a_leaf_is_one():
    x = scalar_leaf(3.0)
    x.backward()
    assert x.grad.item() == 1.0


@pytest.mark.parametrize("start", [np.zeros((2, 1)), np.zeros(2, np.float32), np.zeros(())], ids=repr)
def test_a_start_of_another_kind_is_refused(start):
    x = leaf(1.0, 2.0)
    with pytest.raises(ValueError, match=r"expected a starting gradient of float64, shape \(2,\)"):
        (x * 2).backward(mg.tensor(start))
    with pytest.raises(TypeError, match="expected a Tensor as the starting gradient, got ndarray"):
        (x * 2).backward(np.ones(2))
    assert x.grad is None


def test_backward_where_nothing_was_recorded_says_why():
    x = leaf(1.0)
    with mg.no_grad():
        quiet = x * 2
    for unrecorded in (mg.tensor(1.0), quiet, (x * 2).detach()):
        with pytest.raises(RuntimeError, match="nothing was recorded"):
            unrecorded.backward()


def test_gradients_add_up_over_backward_calls():
    x, w = leaf(2.0), leaf(3.0)
    (x * w).backward()
    first = x.grad
    (x * x * w).backward()
    assert x.grad.item() == 3.0 + 12.0
    assert w.grad.item() == 2.0 + 4.0
    assert first.item() == 3.0
    assert not x.grad.requires_grad


def test_every_use_of_a_tensor_adds_to_its_gradient():
    x = scalar_leaf(3.0)
    a = x * x
    b = a + x
    (a * b + b * b + x).backward()
    # f = x^2 (x^2 + x) + (x^2 + x)^2 + x = 2 x^4 + 3 x^3 + x^2 + x
    assert x.grad.item() == pytest.approx(8 * 27 + 9 * 9 + 2 * 3 + 1, rel=1e-14)


def test_a_ladder_of_diamonds_is_walked_once():
    x = y = scalar_leaf(1.0)
    for _ in range(200):
        y = (y + y) * 0.5
    y.backward()
    assert x.grad.item() == 1.0


def test_a_broadcast_input_gets_the_sum_of_its_uses():
    bias = mg.tensor(np.zeros((1, 3)), requires_grad=True)
    scale = scalar_leaf(2.0)
    x = array(np.arange(12.0).reshape(2, 2, 3))
    ((x + bias) * scale).sum().backward()
    assert bias.grad.numpy().tolist() == [[8.0, 8.0, 8.0]]
    assert scale.grad.shape == ()
    assert scale.grad.item() == 66.0


def test_what_requires_no_gradient_gets_none():
    x, constant = leaf(1.0), mg.tensor(np.array([5.0]))
    (x * constant).backward()
    assert constant.grad is None
    assert x.grad.item() == 5.0


def test_backward_to_chosen_inputs_leaves_the_others_alone():
    x, w = leaf(2.0), leaf(3.0)
    h = x * w
    (h * h).backward(inputs=[w, h])
    assert x.grad is None
    assert w.grad.item() == 2 * 6.0 * 2.0
    assert h.grad.item() == 12.0


def test_backward_leaves_the_gradient_of_an_input_without_a_path_as_it_is():
    x, other = leaf(2.0), mg.tensor(np.zeros((4, 1)), requires_grad=True)
    (x * x).backward(inputs=[x, other])
    assert other.grad is None
    assert x.grad.item() == 4.0
    other.grad = kept = mg.tensor(np.full((4, 1), 7.0))
    (x * x).backward(inputs=[other, x])
    assert other.grad is kept
    assert kept.numpy().tolist() == [[7.0]] * 4
    assert x.grad.item() == 8.0
    (x * x).backward(inputs=other)
    (x * x).backward(inputs=[])
    assert other.grad is kept
    assert x.grad.item() == 8.0


def test_backward_to_an_input_that_requires_no_gradient_is_refused():
    x, constant = leaf(2.0), mg.tensor(np.zeros(3))
    for inputs in ([x, constant], [constant]):
        with pytest.raises(RuntimeError, match=r"shape \(3,\) that does not require one"):
            (x * x).backward(inputs=inputs)
    assert x.grad is None


def test_an_input_that_requires_no_gradient_is_refused():
    x, constant = leaf(2.0), mg.tensor(np.array([1.0, 2.0]))
    with pytest.raises(RuntimeError, match=r"shape \(2,\) that does not require one: set requires_grad=True"):
        mg.grad((x * constant).sum(), constant)


# -- grad ------------------------------------------------------------------------------------------------


def test_grad_leaves_every_grad_alone():
    x, w = leaf(2.0), leaf(3.0)
    gradients = mg.grad(x * w, [x, w])
    assert isinstance(gradients, tuple)
    assert [g.item() for g in gradients] == [3.0, 2.0]
    assert x.grad is None
    assert w.grad is None


def test_grad_to_tensors_on_the_way():
    x = leaf(2.0)
    h = x * x
    y = h * h + h
    to_h, to_x, to_y = mg.grad(y, [h, x, y])
    assert (to_h.item(), to_x.item(), to_y.item()) == (9.0, 36.0, 1.0)


def test_grad_of_several_outputs_adds_them_with_their_starts():
    x = leaf(1.0, 2.0)
    starts = [mg.tensor(np.array([1.0, 10.0])), mg.tensor(np.array([100.0, 1000.0]))]
    (g,) = mg.grad([x * 2, x * x], x, starts)
    assert g.numpy().tolist() == [2 + 200.0, 20 + 4000.0]
    (g,) = mg.grad([(x * 2).sum(), (x * x).sum()], x)
    assert g.numpy().tolist() == [4.0, 6.0]
    (g,) = mg.grad([x.sum(), x * x], x, [None, starts[0]])
    assert g.numpy().tolist() == [3.0, 41.0]


def test_grad_wants_a_start_for_each_output():
    x = leaf(1.0)
    with pytest.raises(ValueError, match="grad: expected grad_outputs for 2 outputs, got \\[None\\]"):
        mg.grad([x * 2, x * 3], x, [None])


def test_an_unused_input_is_an_error_unless_allowed():
    x, other = leaf(1.0), leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match=r"inputs\[1\] \(shape \(2,\)\).*allow_unused=True"):
        mg.grad(x * 2, [x, other])
    g, none = mg.grad(x * 2, [x, other], allow_unused=True)
    assert g.item() == 2.0
    assert none is None


# -- the graph is used up ----------------------------------------------------------------------------------


def test_a_second_backward_needs_retain_graph():
    x = leaf(3.0)
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 12.0
    with pytest.raises(RuntimeError, match="backward through multiply a second time.*retain_graph=True"):
        y.backward()
    assert x.grad.item() == 12.0


def test_a_shared_part_is_used_up_for_all():
    x = leaf(3.0)
    h = x.exp()
    a, b = (h * 2).sum(), (h * 3).sum()
    a.backward()
    with pytest.raises(RuntimeError, match="backward through exp a second time"):
        b.backward()
    assert x.grad.item() == pytest.approx(2 * np.exp(3.0), rel=1e-14)


def test_what_was_not_walked_stays():
    x, w = leaf(2.0), leaf(3.0)
    h = x.exp()
    y = h * w
    mg.grad(y, w, retain_graph=False)
    h.backward()
    assert x.grad.item() == pytest.approx(np.exp(2.0), rel=1e-14)


def test_create_graph_keeps_the_graph_unless_told_otherwise():
    x = leaf(3.0)
    y = x.exp()
    (kept,) = mg.grad(y, x, create_graph=True)
    assert kept.requires_grad
    (again,) = mg.grad(y, x, create_graph=True, retain_graph=False)
    assert again.item() == kept.item()
    with pytest.raises(RuntimeError, match="a second time"):
        mg.grad(y, x)


def test_gradients_record_nothing_unless_asked():
    x = leaf(3.0)
    y = x * x * x
    assert not mg.grad(y, x, retain_graph=True)[0].requires_grad
    with mg.no_grad():
        assert mg.grad(y, x, create_graph=True)[0].requires_grad


# -- changes in place --------------------------------------------------------------------------------------


def test_a_step_between_forward_and_backward_is_noticed():
    w = leaf(2.0)
    optimizer = optim.SGD([w], lr=0.1)
    (w * w).backward()
    late = w * w
    optimizer.step()
    with pytest.raises(RuntimeError, match=r"multiply: an input of shape \(1,\) was changed in place"):
        late.backward()
    optimizer.zero_grad()
    (w * w).backward()
    assert w.grad.item() == pytest.approx(2 * (2.0 - 0.1 * 4.0), rel=1e-14)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.Dense(2, 2),
        lambda: nn.Conv2d(2, 2, 1),
        lambda: nn.ConvTranspose2d(2, 2, 1),
        lambda: nn.BatchNorm(2),
    ],
    ids=["Dense", "Conv2d", "ConvTranspose2d", "BatchNorm"],
)
def test_a_step_of_a_layer_between_forward_and_backward_is_noticed(layer):
    model = layer()
    shape = (3, 2, 1, 1) if "Conv" in repr(model) else (3, 2)
    x = mg.tensor(np.arange(6, dtype=np.float32).reshape(shape) ** 2, requires_grad=True)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    (model(x) * x).sum().backward()
    late = model(x).sum()
    optimizer.step()
    with pytest.raises(RuntimeError, match="changed in place"):
        late.backward()


VIEWS = {
    "reshape": lambda w: w.reshape(4),
    "transpose": lambda w: w.transpose(),
    "rows": lambda w: w[:1],
    "detach": lambda w: w.detach(),
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_change_under_a_view_is_noticed(view):
    w, x = mg.tensor(np.eye(2), requires_grad=True), scalar_leaf(3.0)
    y = (VIEWS[view](w) * x).sum()
    w.data *= 2.0
    with pytest.raises(RuntimeError, match="changed in place"):
        mg.grad(y, x)


def test_an_assignment_and_a_loaded_state_are_noticed():
    x, model = leaf(2.0), nn.Conv2d(1, 1, 1)
    y = x.log()
    x.data = array([5.0])
    with pytest.raises(RuntimeError, match="log.*assignment to .data"):
        y.backward()
    image = mg.tensor(np.ones((1, 1, 1, 1), np.float32), requires_grad=True)
    z = model(image).sum()
    model.load_state_dict(model.state_dict())
    with pytest.raises(RuntimeError, match="load_state_dict"):
        z.backward()


@pytest.mark.parametrize("name", ["exp", "sqrt", "tanh", "sigmoid", "relu"])
def test_a_result_that_backward_reads_may_not_change_unnoticed(name):
    x = leaf(4.0)
    y = getattr(F, name)(x)
    y.data *= -1.0
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


@pytest.mark.parametrize("name", VIEWS)
def test_another_array_for_a_view_leaves_the_tensor_as_it_is(name):
    w = mg.tensor(np.array([[1.0, 2.0], [3.0, 4.0]]), requires_grad=True)
    with mg.no_grad():
        view = VIEWS[name](w)
    y = (w * w).sum()
    view.data = view.data + 1.0
    y.backward()
    assert w.grad.numpy().tolist() == [[2.0, 4.0], [6.0, 8.0]]
    assert view.numpy().reshape(-1)[0] == 2.0
    assert w.numpy()[0, 0] == 1.0


def test_another_array_for_a_tensor_leaves_its_views_as_they_are():
    x = leaf(2.0, 3.0)
    detached, view = x.detach(), x[:1]
    y, z = (detached * x).sum(), (view * x).sum()
    late = (view * view).sum()
    x.data = array([5.0, 5.0])
    for changed in (y, z):
        with pytest.raises(RuntimeError, match="multiply: an input .* assignment to .data"):
            changed.backward()
    late.backward()  # of the old values, which are still there
    assert x.grad.numpy().tolist() == [4.0, 0.0]
    assert detached.numpy().tolist() == [2.0, 3.0]


@pytest.mark.parametrize("name", VIEWS)
def test_a_change_in_place_through_a_view_is_noticed(name):
    def in_place(view):
        view.data[...] = 0.0
        view.mark_changed()

    def augmented(view):
        view.data *= 2.0

    def by_a_view_of_the_array(view):
        view.data[...] = 0.0
        view.data = view.data[...]

    for change in (in_place, augmented, by_a_view_of_the_array):
        w = mg.tensor(np.eye(2), requires_grad=True)
        with mg.no_grad():
            view = VIEWS[name](w)
        y = (w * w).sum()
        change(view)
        with pytest.raises(RuntimeError, match="multiply: an input .* changed in place"):
            y.backward()


def test_another_array_for_a_view_ends_the_sharing():
    w = leaf(1.0, 2.0)
    detached = w.detach()
    detached.data = detached.data * 1.0
    y = (w * w).sum()
    detached.data[...] = 0.0
    detached.mark_changed()
    y.backward()
    assert w.grad.numpy().tolist() == [2.0, 4.0]
    late = (detached * w).sum()
    w.mark_changed()
    with pytest.raises(RuntimeError, match="changed in place"):
        late.backward()


def test_the_count_of_changes_grows_by_every_assignment():
    x = leaf(1.0)
    for expected in (1, 2, 3):
        x.data = x.data + 1.0
        assert x.version == expected
    x.data += 1.0
    assert x.version == 4


def test_another_array_for_a_result_is_noticed_by_what_reads_it():
    x = leaf(4.0)
    y = x.sqrt()
    y.data = array([1.0])
    with pytest.raises(RuntimeError, match="sqrt: its result was changed"):
        y.backward()


def test_the_old_array_does_not_bring_the_old_graph_back():
    x = leaf(4.0)
    y, old = x.log(), x.data
    x.data = array([1.0])
    x.data = old
    with pytest.raises(RuntimeError, match="log: an input"):
        y.backward()


def test_a_change_that_backward_does_not_read_is_no_error():
    x, w = leaf(2.0), leaf(3.0)
    y = x + w.exp()
    x.data = array([9.0])
    w.data = array([9.0])
    y.backward()
    assert x.grad.item() == 1.0
    assert w.grad.item() == pytest.approx(np.exp(3.0), rel=1e-14)


def test_running_statistics_may_move_before_backward():
    layer = nn.BatchNorm(2)
    x = mg.tensor([[1.0, 2.0], [3.0, 5.0]], requires_grad=True)
    y = layer.eval()(x).sum()
    layer.train()(x * 3)
    y.backward()
    np.testing.assert_allclose(x.grad.numpy(), np.full((2, 2), 1 / np.sqrt(1 + 1e-5)), rtol=1e-6)


# -- long chains -------------------------------------------------------------------------------------------


def chain(x, length):
    y = x
    for _ in range(length // 2):
        y = y * 1.0 + 1.0
    return y


def test_a_chain_of_100_000_operations():
    x = scalar_leaf(0.0)
    y = chain(x, 100_000)
    assert y.item() == 50_000.0
    y.backward()
    assert x.grad.item() == 1.0


def test_a_chain_of_100_000_operations_is_freed_unwalked():
    x = scalar_leaf(0.0)
    y = chain(x, 100_000)
    start = weakref.ref(y.node)
    del y
    assert start() is None


def test_a_recorded_gradient_of_a_long_chain_is_walked_and_freed():
    x = scalar_leaf(1.0)
    y = x
    for _ in range(10_000):
        y = y * x
    (g,) = mg.grad(y, x, create_graph=True)
    assert g.item() == 10_001.0
    assert mg.grad(g, x)[0].item() == 10_001.0 * 10_000.0
    node = weakref.ref(g.node)
    del g, y
    assert node() is None


# -- memory ------------------------------------------------------------------------------------------------


@contextmanager
def without_collector():
    """Switch the garbage collector off, and leave the objects there are out of what `alive` counts."""
    gc.collect()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


def alive():
    """Count tensors and operations; within `without_collector`, those made since it began."""
    kinds = (mg.Tensor, mg.Operation)
    return sum(issubclass(type(thing), kinds) for thing in gc.get_objects())


def batch(*shape):
    return mg.tensor(np.random.default_rng(0).uniform(0.1, 0.9, shape), requires_grad=True)


NETWORKS = {
    "exp": lambda: (batch(3).exp() * 2).sum(),
    "tanh": lambda: F.tanh(batch(3) * 2).sum(),
    "sigmoid": lambda: F.sigmoid(batch(3)).sum(),
    "sqrt": lambda: batch(3).sqrt().sum(),
    "max": lambda: batch(3, 2).max(axis=0).sum(),
    "leaky relu": lambda: F.leaky_relu(batch(3) - 0.5, 0.2).sum(),
    "power": lambda: (batch(3) ** batch(3)).sum(),
    "matmul": lambda: (batch(3, 2) @ batch(2, 4)).mean(),
    "shapes": lambda: mg.concatenate([batch(2, 3).transpose(), mg.pad(batch(3, 1), [(0, 0), (1, 0)])]).max(),
    "conv": lambda: F.conv2d(batch(1, 2, 5, 5), batch(3, 2, 3, 3), batch(3), 2, 1).sum(),
    "conv transpose": lambda: F.conv_transpose2d(batch(1, 2, 3, 3), batch(2, 3, 3, 3), batch(3), 2).sum(),
    "batch norm": lambda: nn.BatchNorm(2, dtype="float64")(batch(4, 2)).exp().sum(),
    "batch norm in use": lambda: nn.BatchNorm(2, dtype="float64").eval()(batch(4, 2, 1, 1)).exp().sum(),
    "dropout": lambda: F.dropout(batch(4, 2)).sum(),
    "losses": lambda: (
        F.cross_entropy(batch(2, 3), [0, 2])
        + F.binary_cross_entropy_with_logits(batch(3), 1)
        + F.binary_cross_entropy(batch(3), 0)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_all_is_freed_without_the_garbage_collector(name):
    build = NETWORKS[name]

    def second_order(y):
        leaves = [e for e in all_edges(y) if isinstance(e, mg.Tensor)]
        gradients = mg.grad(y, leaves, create_graph=True)
        total = sum(((g * g).sum() for g in gradients[1:]), (gradients[0] * gradients[0]).sum())
        if total.requires_grad:
            mg.grad(total, leaves, allow_unused=True)

    with without_collector():
        before = alive()
        held = build()
        assert alive() > before
        del held
        assert alive() == before
        build().backward()
        assert alive() == before
        second_order(build())
        assert alive() == before


def all_edges(y):
    found, waiting = {}, [y.node]
    while waiting:
        for edge in waiting.pop().edges:
            if edge is not None and id(edge) not in found:
                found[id(edge)] = edge
                if isinstance(edge, mg.Operation):
                    waiting.append(edge)
    return found.values()


def test_a_whole_training_step_leaves_no_garbage():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm(2), nn.LeakyReLU(0.2), nn.Dropout(0.3),
        nn.Flatten(), nn.Dense(18, 1), nn.Tanh(),
    )  # fmt: skip
    optimizer = optim.Adam(model.parameters())
    x = mg.tensor(np.random.default_rng(0).normal(size=(4, 1, 5, 5)).astype(np.float32))

    def step():
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(model(x), 1).backward()
        optimizer.step()

    with without_collector():
        step()
        before = alive()  # with the gradients, which the next step replaces
        step()
        assert alive() == before


def test_the_graph_is_freed_while_backward_passes_through_it(monkeypatch):
    x = leaf(1.0, 2.0)
    h = x.exp() + 1.0
    y = (h * h).sum()
    middle, seen = weakref.ref(h), []
    exp = OPERATIONS["exp"]
    right = exp.backward

    def watched(self, dy):
        seen.append(middle() is None)
        return right(self, dy)

    monkeypatch.setattr(exp, "backward", watched)
    del h
    y.backward(retain_graph=True)
    y.backward()
    assert seen == [False, True]


def test_backward_frees_what_a_kept_result_would_hold():
    x = leaf(1.0, 2.0)
    h = x * 2.0
    square = h * h
    held = weakref.ref(h)
    del h
    assert held() is not None
    square.sum().backward()
    assert held() is None
    assert square.numpy().tolist() == [4.0, 16.0]


# -- no two gradients share memory ---------------------------------------------------------------------------

SQUARE = (2, 2)
JOINS = {
    "add": lambda a, b: a + b,
    "scaled": lambda a, b: (a + b) * 2.0,
    "add and transpose": lambda a, b: (a + b.transpose()).transpose(),
    "reshape": lambda a, b: a.reshape(4).reshape(2, 2) + b.reshape(2, 2),
    "rows": lambda a, b: a[:] + b[...],
    "concatenate": lambda a, b: mg.concatenate([a, b])[:2] + mg.concatenate([b, a])[:2],
    "same device": lambda a, b: a.to(a.device) + mg.functional.broadcast_to(b, SQUARE),
    "one leaf twice": lambda a, b: (a + a + b) - a,
}


@pytest.mark.parametrize("name", JOINS)
@pytest.mark.parametrize("as_view", [False, True], ids=["array", "view"])
def test_gradients_share_no_memory(name, as_view):
    a, b = (mg.tensor(np.zeros(SQUARE), requires_grad=True) for _ in range(2))
    base = array([[0.0, 1.0], [2.0, 3.0]])
    start = mg.Tensor(base[:, :] if as_view else base)
    JOINS[name](a, b).backward(start)
    expected = b.grad.numpy().copy()
    a.grad.data[...] = 77.0
    assert b.grad.numpy().tolist() == expected.tolist()
    assert base.tolist() == [[0.0, 1.0], [2.0, 3.0]]
    b.grad.data[...] = 88.0
    assert a.grad.numpy().tolist() == [[77.0, 77.0], [77.0, 77.0]]
    assert base.tolist() == [[0.0, 1.0], [2.0, 3.0]]


def test_a_summed_gradient_can_be_written_into():
    a, b = (mg.tensor(np.zeros((2, 3)), requires_grad=True) for _ in range(2))
    (a.sum() + b.mean(axis=0).sum()).backward()
    a.grad.data[0, 0] = 5.0
    b.grad.data[0, 0] = 6.0
    assert a.grad.numpy().tolist() == [[5.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    assert b.grad.numpy().tolist() == [[6.0, 0.5, 0.5], [0.5, 0.5, 0.5]]


def test_gradients_that_were_added_to_share_no_memory():
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    start = mg.tensor(np.array([1.0, 10.0]))
    for _ in range(2):
        (a + b).backward(start)
    a.grad.data[...] = 0.0
    assert b.grad.numpy().tolist() == [2.0, 20.0]
    assert start.numpy().tolist() == [1.0, 10.0]


# -- higher orders -------------------------------------------------------------------------------------------

POINTS = np.array([-1.5, -0.25, 0.5, 2.0])
CLOSED_FORMS = {
    "cube": (lambda x: x**3, lambda x: 3 * x**2, lambda x: 6 * x, lambda x: 6 + 0 * x),
    "product": (lambda x: x * x * x, lambda x: 3 * x**2, lambda x: 6 * x, lambda x: 6 + 0 * x),
    "reciprocal": (lambda x: 1 / x, lambda x: -(x**-2), lambda x: 2 * x**-3, lambda x: -6 * x**-4),
    "exp": (lambda x: (2 * x).exp(), *(lambda x, k=k: 2**k * np.exp(2 * x) for k in (1, 2, 3))),
    "tanh": (
        F.tanh,
        lambda x: 1 - np.tanh(x) ** 2,
        lambda x: -2 * np.tanh(x) * (1 - np.tanh(x) ** 2),
        lambda x: (1 - np.tanh(x) ** 2) * (6 * np.tanh(x) ** 2 - 2),
    ),
    "log": (lambda x: (x * x).log(), lambda x: 2 / x, lambda x: -2 / x**2, lambda x: 4 / x**3),
    "bell": (
        lambda x: (-(x * x)).exp(),
        lambda x: -2 * x * np.exp(-(x**2)),
        lambda x: (4 * x**2 - 2) * np.exp(-(x**2)),
        lambda x: (12 * x - 8 * x**3) * np.exp(-(x**2)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_three_orders_agree_with_closed_forms(name):
    function, *derivatives = CLOSED_FORMS[name]
    x = leaf(*POINTS)
    y = function(x)
    for derivative in derivatives:
        (y,) = mg.grad(y.sum(), x, create_graph=True)
        np.testing.assert_allclose(y.numpy(), derivative(POINTS), rtol=1e-12, atol=1e-13)


def test_powers_have_all_their_derivatives_at_zero():
    x = y = scalar_leaf(0.0)
    y, found = x**3, []
    for _ in range(4):
        (y,) = mg.grad(y, x, create_graph=True)
        found.append(y.item())
    assert found == [0.0, 0.0, 6.0, 0.0]


def test_mixed_second_derivatives():
    x, y = scalar_leaf(2.0), scalar_leaf(5.0)
    to_x, to_y = mg.grad(x**2 * y**3, [x, y], create_graph=True)
    xx, xy = mg.grad(to_x, [x, y], retain_graph=True)
    yx, yy = mg.grad(to_y, [x, y])
    assert (xx.item(), yy.item()) == pytest.approx((2 * 125.0, 6 * 4.0 * 5.0))
    assert xy.item() == yx.item() == pytest.approx(6 * 2.0 * 25.0)


def test_a_gradient_penalty_reaches_the_leaves():
    x = leaf(*POINTS)
    (g,) = mg.grad((x**3).sum(), x, create_graph=True)
    (g * g).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 36 * POINTS**3, rtol=1e-13)


def test_backward_with_create_graph_leaves_gradients_to_differentiate():
    x = leaf(*POINTS)
    (x**3).sum().backward(create_graph=True)
    first, x.grad = x.grad, None
    first.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 6 * POINTS, rtol=1e-13)


def test_the_starting_gradient_is_differentiated_too():
    x, start = leaf(3.0), leaf(5.0)
    (g,) = mg.grad(x * x, x, start, create_graph=True)
    assert [t.item() for t in mg.grad(g, [x, start])] == [10.0, 6.0]


def test_a_hessian_vector_product_agrees_with_differences():
    rng = np.random.default_rng(4)
    a, at, v = rng.normal(size=(7, 4)), rng.normal(size=4), rng.normal(size=4)
    w = leaf(*at)
    (g,) = mg.grad(F.softplus(mg.tensor(a) @ w).sum(), w, create_graph=True)
    (product,) = mg.grad((g * mg.tensor(v)).sum(), w)

    def gradient(w):
        return a.T @ (1 / (1 + np.exp(-a @ w)))

    h = 1e-5
    differences = (gradient(at + h * v) - gradient(at - h * v)) / (2 * h)
    np.testing.assert_allclose(product.numpy(), differences, rtol=1e-8)


def test_float32_stays_float32_at_every_order():
    x = mg.tensor([0.5, 2.0], requires_grad=True)
    (g,) = mg.grad((F.tanh(x) * x**2 / 3).sum(), x, create_graph=True)
    (h,) = mg.grad(g.sum(), x)
    assert g.dtype == h.dtype == SINGLE


CONDITION = [True, False, True, False]
PIECEWISE = {
    "relu": F.relu,
    "leaky relu": lambda x: F.leaky_relu(x, 0.2),
    "abs": abs,
    "clip": lambda x: x.clip(-1.0, 1.0),
    "maximum": lambda x: mg.maximum(x, 0.3),
    "where": lambda x: mg.where(CONDITION, x, 0.5),
    "max": lambda x: x.max(),
    "sum": lambda x: x.sum(),
    "mean": lambda x: x.mean(),
    "add": lambda x: x + 2.0,
    "subtract": lambda x: 2.0 - x,
    "negate": lambda x: -x,
    "scaled": lambda x: x * 3.0 / 2.0,
    "identity": lambda x: x,
    "rows": lambda x: x[1:],
    "shapes": lambda x: x.reshape(2, 2).transpose(),
    "joined": lambda x: mg.concatenate([x, mg.pad(x, [(1, 0)])]),
    "cast": lambda x: x.to("float32"),
    "moved": lambda x: x.to("cpu"),
    "dropout": F.dropout,
    "matmul": lambda x: x.reshape(1, 4) @ array([[1.0], [2.0], [3.0], [4.0]]),
}


@pytest.mark.parametrize("name", PIECEWISE)
def test_the_second_derivative_of_a_piecewise_linear_function_is_zero(name):
    x = leaf(*POINTS)
    y = PIECEWISE[name](x).sum()
    (g,) = mg.grad(y, x, create_graph=True)
    assert mg.grad(g.sum(), x)[0].numpy().tolist() == [0.0] * 4
    (h,) = mg.grad((g * g).sum(), x, create_graph=True)  # of second order
    assert (h.shape, h.dtype) == (x.shape, x.dtype)
    assert h.numpy().tolist() == [0.0] * 4
    for again in (h.sum(), (h * h).sum() + g.sum()):
        assert mg.grad(again, x, create_graph=True)[0].numpy().tolist() == [0.0] * 4
    # The derivative of g(x) x is g(x), of x^2 + g(x) it is 2 x.
    assert mg.grad((g * x).sum(), x)[0].numpy().tolist() == g.numpy().tolist()
    assert mg.grad((x * x).sum() + g.sum(), x)[0].numpy().tolist() == (2 * POINTS).tolist()
    assert x.grad is None
    g.sum().backward()
    assert x.grad.numpy().tolist() == [0.0] * 4


def test_a_zero_second_derivative_is_of_the_dtype_and_shape_of_the_input():
    x = mg.tensor([[1.0, -2.0]], requires_grad=True)
    (g,) = mg.grad(F.relu(x).sum(), x, create_graph=True)
    (h,) = mg.grad(g.sum(), x)
    assert (h.shape, h.dtype) == ((1, 2), SINGLE)
    assert not h.requires_grad


def test_a_gradient_that_changes_with_some_inputs_has_a_zero_derivative_in_the_others():
    x, w, other = leaf(-1.0, 2.0), leaf(3.0, 5.0), leaf(1.0)
    y = (F.relu(x) * w + F.tanh(w)).sum()
    to_x, to_w = mg.grad(y, [x, w], create_graph=True)
    assert mg.grad(to_x.sum(), x, retain_graph=True)[0].numpy().tolist() == [0.0, 0.0]
    assert mg.grad(to_x.sum(), w, retain_graph=True)[0].numpy().tolist() == [0.0, 1.0]
    assert mg.grad(to_w.sum(), x, retain_graph=True)[0].numpy().tolist() == [0.0, 1.0]
    t = np.tanh([3.0, 5.0])
    np.testing.assert_allclose(
        mg.grad(to_w.sum(), w, retain_graph=True)[0].numpy(), -2 * t * (1 - t**2), rtol=1e-12
    )
    with pytest.raises(RuntimeError, match=r"do not depend on inputs\[0\]"):
        mg.grad(to_x.sum(), other)


def test_a_tensor_at_the_address_of_one_that_has_gone_is_not_taken_for_it():
    x, other = leaf(1.0), leaf(2.0)
    (g,) = mg.grad(F.relu(x).sum(), x, create_graph=True)
    g.node.reached = {id(other): weakref.ref(x)}
    with pytest.raises(RuntimeError, match=r"do not depend on inputs\[0\]"):
        mg.grad(g.sum(), other)


def test_a_change_of_a_recorded_gradient_is_noticed_by_the_operation_that_made_it(monkeypatch):
    monkeypatch.setattr(OPERATIONS["exp"], "backward", lambda self, dy: (F.exp(dy),))
    x, start = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (g,) = mg.grad(F.exp(x), x, start, create_graph=True)
    g.mark_changed()
    with pytest.raises(RuntimeError, match="backward through exp: its result was changed in place"):
        mg.grad(g.sum(), start)


def test_the_second_derivative_of_a_network_of_relus_is_zero_in_its_input():
    x = mg.tensor(np.random.default_rng(0).normal(size=(3, 4)), requires_grad=True)
    model = nn.Sequential(nn.Dense(4, 5, dtype="float64"), nn.ReLU(), nn.Dense(5, 1, dtype="float64"))
    (g,) = mg.grad(model(x).sum(), x, create_graph=True)
    penalty = (g * g).sum()
    (to_x, *to_weights) = mg.grad(penalty, [x, *model.parameters()], retain_graph=True)
    assert to_x.numpy().tolist() == [[0.0] * 4] * 3
    assert to_weights[0].numpy().any()
    assert to_weights[2].numpy().any()
    assert not to_weights[1].numpy().any()
    assert not to_weights[3].numpy().any()
    penalty.backward()
    assert model[0].bias.grad is None  # as no path leads there


def test_a_zero_derivative_to_tensors_on_the_way():
    x = leaf(-1.0, 2.0)
    h = x * 2.0
    y = F.relu(h)
    to_h, to_x = mg.grad(y.sum(), [h, x], create_graph=True)
    for g in (to_h, to_x):
        for target in (h, x, y):
            assert mg.grad(g.sum(), target)[0].numpy().tolist() == [0.0, 0.0]
    with pytest.raises(RuntimeError, match=r"do not depend on inputs\[0\]"):
        mg.grad(to_h.sum(), x * 3.0)


def test_what_was_not_recorded_has_no_second_derivative():
    x = leaf(1.0, -2.0)
    (plain,) = mg.grad(F.relu(x).sum(), x, retain_graph=True)
    (g,) = mg.grad(F.relu(x).sum(), x, create_graph=True)
    with mg.no_grad():
        quiet = g.sum()
    for unrecorded in (plain.sum(), g.detach().sum(), quiet):
        with pytest.raises(RuntimeError, match="nothing was recorded"):
            mg.grad(unrecorded, x)


def test_a_recorded_gradient_of_a_relu_holds_nothing():
    with without_collector():
        before = alive()
        x = leaf(1.0, -2.0)
        y = F.relu(x * 2.0)
        node = weakref.ref(y.node)
        (g,) = mg.grad(y.sum(), x, create_graph=True)
        (h,) = mg.grad(g.sum(), x, create_graph=True)
        del y
        assert node() is None
        held = weakref.ref(x)
        del x
        assert held() is None
        g.sum().backward()  # to nothing
        del g, h
        assert alive() == before


def test_the_derivative_with_respect_to_a_start_is_not_taken_for_one_of_the_input():
    x, start = leaf(1.0, -2.0), leaf(3.0, 5.0)
    (g,) = mg.grad(F.relu(x), x, start, create_graph=True)
    assert mg.grad(g.sum(), start, retain_graph=True)[0].numpy().tolist() == [1.0, 0.0]
    assert mg.grad(g.sum(), x)[0].numpy().tolist() == [0.0, 0.0]


@pytest.mark.parametrize("data", [None, [1, None], "1.5", ["1.5"], [[1.0], [1.0, 2.0]], {"a": 1}, [1j]])
def test_what_holds_no_numbers_is_refused(data):
    with pytest.raises(TypeError, match="tensor: expected numbers in lists of equal length"):
        mg.tensor(data)


def test_integers_with_floats_make_float32():
    pixels = mg.tensor(np.arange(4, dtype=np.uint8))
    for y in (pixels / 255, pixels * 2.0, 1.0 - pixels, (pixels + 1) / (pixels + 1), pixels**0.5):
        assert y.dtype == "float32"
    assert (pixels + 1).dtype == np.uint8


@pytest.mark.parametrize("starts", [np.ones(3), [], 1.0])
def test_starting_gradients_of_the_wrong_kind_are_told(starts):
    x = mg.tensor(np.ones(3), requires_grad=True)
    with pytest.raises(ValueError, match="grad: expected grad_outputs for 1 outputs"):
        mg.grad(x * 2, x, starts)


def test_a_graph_that_was_released_where_no_gradient_is_wanted_does_no_harm():
    a, h = (mg.tensor(np.array([v]), requires_grad=True) for v in (2.0, 3.0))
    m = a * a
    (m * m).sum().backward()
    product = (m * h).sum()
    product.backward(inputs=[h], retain_graph=True)
    assert h.grad.item() == 4.0
    with pytest.raises(RuntimeError, match="multiply a second time"):
        product.backward(inputs=[a, h])
    with pytest.raises(RuntimeError, match="multiply a second time"):
        product.backward()
    assert h.grad.item() == 4.0


def test_an_input_asked_for_twice_gets_its_gradient_once():
    a = mg.tensor(np.array([2.0]), requires_grad=True)
    (a * 3).sum().backward(inputs=[a, a])
    assert a.grad.item() == 3.0
    (a * 3).sum().backward(inputs=a)
    assert a.grad.item() == 6.0


def test_activations_of_infinities():
    x = mg.tensor([float("inf"), float("-inf")])
    assert F.relu(x).numpy().tolist() == [float("inf"), 0.0]
    assert F.leaky_relu(x, 0.5).numpy().tolist() == [float("inf"), float("-inf")]
    assert F.sigmoid(x).numpy().tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv2d(2, 3, 3),
        lambda: nn.ConvTranspose2d(2, 3, 3),
        lambda: nn.BatchNorm(2).eval(),
        lambda: nn.LeakyReLU(0.2),
        lambda: nn.Dropout(0.5),
    ],
    ids=["Conv2d", "ConvTranspose2d", "BatchNorm", "LeakyReLU", "Dropout"],
)
def test_an_empty_batch_gives_an_empty_batch_and_empty_sums(make):
    layer = make()
    x = mg.tensor(np.zeros((0, 2, 5, 5), np.float32), requires_grad=True)
    y = layer(x)
    assert y.shape[0] == 0
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert not any(p.grad.numpy().any() for p in layer.parameters())


@pytest.mark.parametrize("target", ["float16", np.float16, "complex64", "nowhere", object()])
def test_a_dtype_or_device_that_is_none_is_told(target):
    with pytest.raises(ValueError, match="to: expected a device .* or a dtype"):
        mg.tensor([1.0]).to(target)


def test_dtypes_without_gradients_or_layers_are_refused():
    for dtype in (np.float16, np.longdouble, np.complex128):
        with pytest.raises(TypeError, match="tensor: expected"):
            mg.tensor(np.ones(2, dtype))
    with pytest.raises(TypeError, match="tensor: expected .*got complex128"):
        mg.tensor(np.ones(2, complex), "float32")  # not without its imaginary parts
    for function in (F.exp, F.log, F.sqrt):
        with pytest.raises(TypeError, match="expected float32 or float64, got int64"):
            function(mg.tensor(np.arange(3)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: mg.stack([1, 2]), TypeError, r"stack: expected a list of tensors, got \[1, 2\]"),
        (lambda x: mg.stack([]), TypeError, "stack: expected a list of tensors"),
        (lambda x: mg.concatenate([x, 1.0]), TypeError, "concatenate: expected a list of tensors"),
        (lambda x: mg.pad(x, 1), ValueError, r"pad: expected 1 pairs .* got 1"),
        (lambda x: mg.pad(x, [(1.7, 0)]), ValueError, "pad: expected 1 pairs"),
        (lambda x: optim.Adam([x], betas=0.9), ValueError, "Adam: expected two betas"),
    ],
)
def test_calls_of_the_wrong_kind_are_told(call, error, message):
    with pytest.raises(error, match=message):
        call(mg.tensor(np.ones(2), requires_grad=True))
