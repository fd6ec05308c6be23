"""Every operation, on all of its cases: values, gradients of both orders, and planted mistakes."""

import itertools
import re
from contextlib import nullcontext

import numpy as np
import pytest
from accuracy import assert_close

import minigrad as mg
import minigrad.functional as F
from minigrad import inspect, naive
from minigrad.gradcheck.check import check_second_order
from minigrad.ops import OPERATIONS
from minigrad.ops.activation import Tanh
from minigrad.ops.methods import METHODS
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
    touched, running = [], []

    def planted(right):
        def wrong(self, dy):
            if running:  # a fused rule that falls back on the other: once is enough
                return right(self, dy)
            running.append(self)
            gradients = list(right(self, dy))
            running.clear()
            gradient = gradients[position] if position < len(gradients) else None
            used = gradient is not None and self.needs[position] and active()
            if used and gradient.numpy().any():
                gradients[position] = gradient * mg.tensor(one_channel_wrong(gradient.numpy()))
                touched.append(operation)
            return tuple(gradients)

        return wrong

    for rule in {"backward", "fused_backward"} & vars(operation).keys():
        patch.setattr(operation, rule, planted(vars(operation)[rule]))
    return touched


def one_channel_wrong(gradient):
    factor = np.ones(gradient.shape)
    axis = min(1, gradient.ndim - 1)
    if axis < 0:
        return np.asarray(factor * 1.01)  # no number, which would become float32
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


@pytest.mark.every_form
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


@pytest.mark.every_form
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
def test_an_input_without_a_gradient_does_not_change_those_of_the_others(operation, case):
    arrays = [np.asarray(a) for a in case.inputs(np.random.default_rng(7))]
    positions = range(len(arrays))
    some = [subset for n in positions[1:] for subset in itertools.combinations(positions, n)]
    for create_graph, needed in itertools.product([False, True], [tuple(positions), *some]):
        inputs = [mg.tensor(a, "float64", requires_grad=i in needed) for i, a in enumerate(arrays)]
        y = case.call(*inputs)
        above = mg.tensor(np.asarray(np.random.default_rng(5).standard_normal(y.shape)))
        found = mg.grad(y, [inputs[i] for i in needed], above, create_graph=create_graph)
        if len(needed) == len(arrays):
            expected = [g.numpy() for g in found]
        for i, gradient in zip(needed, found, strict=True):
            assert_close(gradient.numpy(), expected[i], "float64")


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


# -- what an operation of one's own may get wrong -------------------------------------------------------


@pytest.fixture
def registry():
    """Whatever operations a test defines are forgotten after it."""
    before = dict(OPERATIONS)
    yield
    OPERATIONS.clear()
    OPERATIONS.update(before)


def twice(**attributes):
    """y = 2 x as an operation of one's own, with something else about it."""
    rules = {"forward": lambda self, x: x + x, "backward": lambda self, dy: (dy * 2.0,)} | attributes
    return type("Twice", (mg.Operation,), rules)()


def leaf():
    return mg.tensor(np.array([1.0, 2.0]), requires_grad=True)


def test_an_operation_of_ones_own_is_right(registry):
    x = leaf()
    twice()(x).sum().backward()
    assert x.grad.numpy().tolist() == [2.0, 2.0]


RETURNED = [
    (lambda dy: dy * 2.0, r"Tensor \(a comma makes a tuple: `return dx,`\)"),
    (lambda dy: None, "NoneType"),
    (lambda dy: dy.data, "ndarray"),
    (lambda dy: (dy, dy), "2 gradients"),
    (lambda dy: (), "0 gradients"),
    (lambda dy: (None,), "None for input 0, whose gradient is needed"),
    (lambda dy: (dy.data,), "ndarray for input 0: compute it from dy by operations on tensors"),
    (lambda dy: (2.0,), "float for input 0"),
]


@pytest.mark.parametrize(("given", "got"), RETURNED)
@pytest.mark.parametrize("watched", [False, True])
def test_a_backward_that_returns_something_else_is_told(registry, watched, given, got):
    y = twice(backward=lambda self, dy: given(dy))(leaf()).sum()
    message = f"twice: expected its backward to return a tuple with a tensor for each of 1 inputs, got {got}"
    with inspect.detect_anomaly() if watched else nullcontext(), pytest.raises(TypeError, match=message):
        y.backward()


FUSED = [
    (lambda self, dy: mg.Tensor(dy.data * 2.0), r"Tensor \(a comma makes a tuple"),
    (lambda self, dy: (dy.data,), r"ndarray for input 0: Tensor\(array, backend=self\.backend\) makes"),
]


@pytest.mark.parametrize(("rule", "got"), FUSED)
def test_a_fused_backward_that_returns_something_else_is_named(registry, rule, got):
    y = twice(fused_backward=rule)(leaf()).sum()
    with pytest.raises(TypeError, match=f"twice: expected its fused_backward to return .*, got {got}"):
        y.backward()


def test_a_backward_of_ones_own_is_not_passed_over_for_an_inherited_fused_one(registry):
    class Wrong(Tanh):
        def backward(self, dy):
            return (dy * 100.0,)

    class Fused(Tanh):
        pass

    for operation, expected in ((Wrong, 100.0), (Fused, 1.0)):
        x = mg.tensor([0.0, 0.0], requires_grad=True)
        operation()(x).sum().backward()
        assert x.grad.numpy().tolist() == [expected, expected]
        assert operation.has_fused_backward is (operation is Fused)


def test_an_inherited_fused_backward_is_named_where_it_is_wrong(registry):
    class Bad(Tanh):
        def fused_backward(self, dy):
            return (dy.data,)

    class Worse(Bad):
        pass

    y = Worse()(leaf()).sum()
    with pytest.raises(TypeError, match="worse: expected its fused_backward to return"):
        y.backward()


def test_the_fused_backward_runs_where_no_graph_is_recorded(registry):
    """It is told apart by gradients of its own; the second order goes through `backward` alone."""

    class Cube(mg.Operation):
        keep_inputs = True

        def forward(self, x):
            return x**3

        def backward(self, dy):
            (x,) = self.inputs
            return (dy * 3.0 * x * x,)

        def fused_backward(self, dy):
            return (mg.Tensor(dy.data + 100.0, backend=self.backend),)

    x = leaf()
    y = Cube()(x).sum()
    (recorded,) = mg.grad(y, x, create_graph=True)
    assert recorded.numpy().tolist() == [3.0, 12.0]
    for retain_graph in (True, False):
        (plain,) = mg.grad(y, x, retain_graph=retain_graph)
        assert plain.numpy().tolist() == [101.0, 101.0]
    recorded.sum().backward()
    assert x.grad.numpy().tolist() == [6.0, 12.0]


def test_an_operation_without_a_fused_backward_uses_the_other(registry):
    x = leaf()
    for create_graph in (False, True):
        assert mg.grad(twice()(x).sum(), x, create_graph=create_graph)[0].numpy().tolist() == [2.0, 2.0]


def test_a_fused_backward_may_fall_back_on_the_other(registry):
    x = leaf()
    twice(fused_backward=lambda self, dy: self.backward(dy))(x).sum().backward()
    assert x.grad.numpy().tolist() == [2.0, 2.0]


def test_a_gradient_that_is_not_needed_may_be_none(registry):
    class Product(mg.Operation):
        keep_inputs = True

        def forward(self, a, b):
            return a * b

        def backward(self, dy):
            a, b = self.inputs
            return dy * b if self.needs[0] else None, dy * a if self.needs[1] else None

    a, b = leaf(), mg.tensor(np.array([3.0, 4.0]))
    Product()(a, b).sum().backward()
    assert a.grad.numpy().tolist() == [3.0, 4.0]
    Product()(b, a).sum().backward()
    assert a.grad.numpy().tolist() == [6.0, 8.0]


NOT_KEPT = [
    (
        {"backward": lambda self, dy: self.inputs},
        r"twice: self\.inputs is read, .*`keep_inputs = True` .* Twice",
    ),
    ({"backward": lambda self, dy: self.output}, r"twice: self\.output is read, .*`keep_output = True`"),
    ({"backward": lambda self, dy: self._output}, r"twice: self\.output is read, .*`keep_output = True`"),
    ({"forward": lambda self, x: self.inputs[0]}, r"twice: self\.inputs is read, .*in backward only"),
    ({"backward": lambda self, dy: self.nothing}, "'Twice' object has no attribute 'nothing'"),
]


@pytest.mark.parametrize(("rules", "message"), NOT_KEPT)
def test_what_was_not_kept_is_told(registry, rules, message):
    with pytest.raises(AttributeError, match=message):
        twice(**rules)(leaf()).sum().backward()


@pytest.mark.parametrize("given", [None, [1.0, 2.0], {}, "x"], ids=repr)
def test_a_forward_that_returns_no_array_is_told(registry, given):
    message = f"twice: expected its forward to return an array on .*, got {type(given).__name__}"
    with pytest.raises(TypeError, match=message):
        twice(forward=lambda self, x: given)(leaf())
    with pytest.raises(TypeError, match="expected its forward to return an array on .*, got Tensor"):
        twice(forward=lambda self, x: mg.tensor([1.0]))(leaf())


def test_a_forward_may_return_a_number(registry):
    assert twice(forward=lambda self, x: float(x.sum()))(leaf()).item() == 3.0


# -- arrays and lists in the place of tensors ------------------------------------------------------------

X, IMAGE, KERNEL = np.ones((2, 3)), np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2))


def ones(*shape):
    return mg.tensor(np.ones(shape))


# By the name that the message begins with; a space tells a second argument's from the first's.
CALLS = {
    "batch_norm": lambda t: F.batch_norm(t(X), None, None, ones(3), ones(3), True),
    "batch_norm, weight": lambda t: F.batch_norm(ones(2, 3), None, None, t(X[0]), ones(3), True),
    "batch_norm, bias": lambda t: F.batch_norm(ones(2, 3), None, None, ones(3), t(X[0]), True),
    "batch_norm, running_mean": lambda t: F.batch_norm(ones(2, 3), t(X[0]), None, ones(3), ones(3)),
    "binary_cross_entropy": lambda t: F.binary_cross_entropy(t(X), 1),
    "binary_cross_entropy_with_logits": lambda t: F.binary_cross_entropy_with_logits(t(X), 1),
    "broadcast_to": lambda t: F.broadcast_to(t(X), (2, 2, 3)),
    "clip": lambda t: F.clip(t(X), 0.0, 1.0),
    "concatenate": lambda t: F.concatenate([t(X), t(X)]),
    "conv2d": lambda t: F.conv2d(t(IMAGE), ones(1, 1, 2, 2)),
    "conv2d ": lambda t: F.conv2d(ones(1, 1, 3, 3), t(KERNEL)),
    "conv2d  ": lambda t: F.conv2d(ones(1, 1, 3, 3), ones(1, 1, 2, 2), t(np.ones(1))),
    "conv_transpose2d": lambda t: F.conv_transpose2d(t(IMAGE), ones(1, 1, 2, 2)),
    "conv_transpose2d ": lambda t: F.conv_transpose2d(ones(1, 1, 3, 3), t(KERNEL)),
    "cross_entropy": lambda t: F.cross_entropy(t(X), [0, 1]),
    "dense": lambda t: F.dense(t(X), ones(2, 3)),
    "dense ": lambda t: F.dense(ones(2, 3), t(X)),
    "dense  ": lambda t: F.dense(ones(2, 3), ones(2, 3), t(np.ones(2))),
    "dropout": lambda t: F.dropout(t(X)),
    "exp": lambda t: F.exp(t(X)),
    "flatten": lambda t: F.flatten(t(X)),
    "leaky_relu": lambda t: F.leaky_relu(t(X)),
    "log": lambda t: F.log(t(X)),
    "matmul": lambda t: F.matmul(t(X), t(X.T)),
    "max": lambda t: F.max(t(X)),
    "maximum": lambda t: F.maximum(t(X), t(X)),
    "mean": lambda t: F.mean(t(X)),
    "pad": lambda t: F.pad(t(X), [(0, 1), (0, 0)]),
    "relu": lambda t: F.relu(t(X)),
    "reshape": lambda t: F.reshape(t(X), 3, 2),
    "sigmoid": lambda t: F.sigmoid(t(X)),
    "softplus": lambda t: F.softplus(t(X)),
    "sqrt": lambda t: F.sqrt(t(X)),
    "stack": lambda t: F.stack([t(X), t(X)]),
    "sum": lambda t: F.sum(t(X)),
    "tanh": lambda t: F.tanh(t(X)),
    "transpose": lambda t: F.transpose(t(X)),
    "var": lambda t: F.var(t(X)),
    "where": lambda t: F.where([True, False, True], t(X), t(X)),
}
KINDS = [np.asarray, np.ndarray.tolist]
CHOICES = ("conv2d  ", "dense  ", "batch_norm, running_mean")  # where None is no mistake
CALLED = {
    "__add__": "add", "__radd__": "add", "__sub__": "subtract", "__rsub__": "subtract", "__mul__": "multiply",
    "__rmul__": "multiply", "__truediv__": "divide", "__rtruediv__": "divide", "__pow__": "power",
    "__rpow__": "power", "__neg__": "negate", "__abs__": "abs", "__matmul__": "matmul",
    "__rmatmul__": "matmul", "__getitem__": "get_item", "__eq__": "eq", "__ne__": "ne", "__lt__": "lt",
    "__le__": "le", "__gt__": "gt",
    "__ge__": "ge", "__iadd__": "+=", "__isub__": "-=", "__imul__": "*=", "__itruediv__": "/=",
    "__ipow__": "**=", "__imatmul__": "@=", "__setitem__": "x[i] = ...",
}  # fmt: skip
ARGUMENTS = {
    "clip": (0.0, 1.0), "reshape": (6,), "to": ("float64",), "__setitem__": (0, 1.0), "__neg__": (),
    "__abs__": (),
}  # fmt: skip


def test_every_public_function_is_called_with_an_array():
    assert {name.strip().partition(",")[0] for name in CALLS} == set(F.__all__)


@pytest.mark.parametrize("kind", [*KINDS, lambda a: None], ids=["array", "list", "None"])
@pytest.mark.parametrize("name", CALLS)
def test_a_function_says_that_it_takes_tensors(name, kind):
    if kind(X) is None and name in CHOICES:
        return
    with pytest.raises(TypeError, match=rf"(?s){name.strip()}: .*got .*minigrad\.tensor\(\.\.\.\)"):
        CALLS[name](kind)


@pytest.mark.parametrize("kind", KINDS, ids=["array", "list"])
@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_that_it_takes_tensors(name, kind):
    arguments = ARGUMENTS.get(name, (2.0,) if name.startswith("__") else ())
    called = re.escape(CALLED.get(name, name))
    with pytest.raises(TypeError, match=rf"(?s){called}: .*got .*minigrad\.tensor\(\.\.\.\)"):
        getattr(mg.Tensor, name)(kind(X), *arguments)


def test_gradients_are_of_tensors_and_with_respect_to_tensors():
    x = leaf()
    for wrong in ([2.0], 2.0, None):
        with pytest.raises(TypeError, match=r"grad: outputs: expected tensors, got (float|NoneType)"):
            mg.grad(wrong, x)
    for wrong in ([x.data], [x, 1.0], ["x"], 1.0):
        with pytest.raises(TypeError, match="inputs: expected tensors, got"):
            mg.grad((x * x).sum(), wrong)
        with pytest.raises(TypeError, match="inputs: expected tensors, got"):
            (x * x).sum().backward(inputs=wrong)
    assert x.grad is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", [(700, 300), (300, 700), (1, 5), (5, 1), (0, 3)])
def test_a_column_times_a_row(default_device, sizes, dtype):
    m, n = sizes
    rng = np.random.default_rng(6)
    column, row = rng.standard_normal((m, 1)).astype(dtype), rng.standard_normal((1, n)).astype(dtype)
    y = (mg.tensor(column) @ mg.tensor(row)).numpy()
    assert np.array_equal(y, [[a * b for b in row[0]] for a in column[:, 0]] if m else np.empty((0, n)))
