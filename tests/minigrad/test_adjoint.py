"""The adjoint test: what it finds linear, what it catches that differences do not, and what it leaves."""

import warnings

import numpy as np
import pytest

import minigrad as mg
import minigrad.functional as F
from minigrad.backend.geometry import ConvGeometry
from minigrad.gradcheck import check_adjoint
from minigrad.ops import OPERATIONS, Operation
from minigrad.ops.conv import Convolve

EVERY_DEVICE = True
pytestmark = pytest.mark.every_form
WORDS = ("backward", "forward")


def point(*shape, seed=0, dtype="float64", scale=1.0):
    values = np.random.default_rng(seed).standard_normal(shape) * scale
    return mg.tensor(np.asarray(values), dtype, requires_grad=True)


@pytest.fixture
def doubled():
    """A product by 2 whose gradient is what the test makes of it; it is forgotten afterwards."""

    class Doubled(Operation):
        rule = staticmethod(lambda dy: dy * 2.0)

        def forward(self, x):
            return x * 2.0

        def backward(self, dy):
            return (type(self).rule(dy),)

    yield Doubled
    del OPERATIONS["doubled"]


def failure(fn, inputs):
    with pytest.raises(mg.GradcheckError) as caught:
        check_adjoint(fn, inputs)
    return caught.value


@pytest.mark.parametrize(
    ("fn", "shapes", "linear"),
    [
        (lambda x: x * 3.0, [(4,)], (0,)),
        (lambda x: x + 3.0, [(4,)], (0,)),
        (lambda x: x - 1e6, [()], (0,)),
        (lambda x: x * 0.0 + 1.0, [(2,)], (0,)),
        (lambda a, b: a / b, [(3,), (3,)], (0,)),
        (lambda a, b: (a * b, a + b), [(2, 3), (3,)], (0, 1)),
        (F.conv2d, [(2, 3, 5, 4), (2, 3, 3, 2), (2,)], (0, 1, 2)),
        (lambda x: x * x, [(3,)], ()),
        (lambda x: x.abs(), [()], ()),
        (F.relu, [()], ()),
        (lambda x: mg.maximum(x, 0.05), [(6,)], ()),
        (lambda x: x.clip(-0.1, 0.1), [(3,)], ()),
        (lambda x: x.max(), [(4,)], ()),
        (lambda x: (x * x).log(), [(3,)], ()),
        (lambda x: x + 1e-6 * x * x, [(3,)], ()),
    ],
)
def test_what_is_linear_is_found_out(fn, shapes, linear):
    found = check_adjoint(fn, [point(*shape, seed=i) for i, shape in enumerate(shapes)])
    assert found.linear == linear
    assert 0 <= found.error < 1e-14


@pytest.mark.parametrize("fn", [F.relu, lambda x: x.abs(), lambda x: F.leaky_relu(x, 0.2)])
def test_one_number_is_enough_to_tell_a_kink(fn):
    """Whatever the signs of the two random numbers are."""
    assert all(check_adjoint(fn, point(), seed=seed).linear == () for seed in range(12))


def test_a_function_that_refuses_other_values_is_not_linear():
    def careful(x):
        if (x.numpy() <= 0).any():
            raise ValueError("outside of the domain")
        return x * 2.0

    assert check_adjoint(careful, mg.tensor(np.ones(2), requires_grad=True)).linear == ()


def test_trying_values_outside_of_a_domain_warns_nobody():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert check_adjoint(lambda x: x.log(), mg.tensor(np.ones(2), requires_grad=True)).linear == ()
    assert not said


def test_the_error_is_the_one_of_the_definition(doubled):
    """Of one number, A = 2 and A^T = 2.02: |2 x y - 2.02 x y| beside 2.02 |x| |y|."""
    doubled.rule = staticmethod(lambda dy: dy * 2.02)
    error = failure(lambda x: doubled()(x), point(1))
    assert error.found.error == pytest.approx(0.02 / 2.02, rel=1e-9)
    assert error.found.linear == (0,)
    assert "allowed 1e-12" in str(error)


def test_the_worst_element_is_named_with_both_numbers(doubled):
    factor = np.full((30, 40), 2.0)
    factor[17, 31] = 2.02
    doubled.rule = staticmethod(lambda dy: dy * mg.tensor(factor))
    message = str(failure(lambda x: doubled()(x), point(30, 40)))
    assert "adjoint test of input 0" in message
    assert "Worst at (17, 31)" in message
    backward, forward = (float(message.split(f"by {word} ")[1].split()[0].rstrip(",.")) for word in WORDS)
    assert backward / forward == pytest.approx(1.01, abs=1e-8)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_transposed_convolution_with_its_padding_off_by_one_is_caught(dtype):
    right = ConvGeometry.of_conv((5, 5), (3, 3), 2, 1, 1)
    shifted = ConvGeometry.of_conv((5, 5), (3, 3), 2, ((0, 2), (1, 1)), 1)

    class Upscale(Operation):
        keep_inputs = True
        back = right

        def forward(self, x, weight):
            return self.backend.convolve_input_gradient(x, weight, None, right)

        def backward(self, dy):
            return Convolve(self.back)(dy, self.inputs[1]), None

    weight = point(2, 1, 3, 3, seed=1, dtype=dtype).detach()
    x = point(1, 2, 3, 3, dtype=dtype)
    try:
        assert check_adjoint(lambda x: Upscale()(x, weight), x).linear == (0,)
        Upscale.back = shifted
        error = failure(lambda x: Upscale()(x, weight), x)
    finally:
        del OPERATIONS["upscale"]
    assert "adjoint test of input 0 (shape (1, 2, 3, 3))" in str(error)


def test_a_small_mistake_beside_large_values_is_caught(doubled):
    """Differences see no more than rounding there: to them the right rule is wrong."""

    def fn(x):
        return doubled()(x) + 1e8

    with pytest.raises(mg.GradcheckError):
        mg.gradcheck(fn, point(3))
    assert check_adjoint(fn, point(3)).linear == (0,)
    doubled.rule = staticmethod(lambda dy: dy * 2.02)
    assert "adjoint test of input 0" in str(failure(fn, point(3)))


def test_large_inputs_are_tested_at_their_size():
    """Were it tested at 1, what bends at 1e5 alone would look linear."""
    assert check_adjoint(lambda x: x.clip(-1e5, 1e5), point(4, scale=1e6)).linear == ()
    assert check_adjoint(lambda x: x.clip(-1e5, 1e5), point(4)).linear == (0,)


def test_float32_is_tested_too(doubled):
    x = point(3, 50, dtype="float32")
    found = check_adjoint(lambda x: doubled()(x), x)
    assert found.error < 1e-6
    doubled.rule = staticmethod(lambda dy: dy * (2.02 if str(dy.dtype) == "float32" else 2.0))
    assert mg.gradcheck(lambda x: doubled()(x), point(3, 50), order=2)
    assert "allowed 1e-05" in str(failure(lambda x: doubled()(x), x))


def test_a_gradient_that_is_wrong_only_when_wanted_alone_is_caught():
    class Product(Operation):
        keep_inputs = True

        def forward(self, a, b):
            return a * b

        def backward(self, dy):
            a, b = self.inputs
            return dy * b, dy * a * (1.0 if self.needs[0] else 1.01)

    inputs = [point(3), point(3, seed=1)]
    try:
        assert mg.gradcheck(lambda a, b: Product()(a, b), inputs, order=2)
        assert "adjoint test of input 1" in str(failure(lambda a, b: Product()(a, b), inputs))
    finally:
        del OPERATIONS["product"]


@pytest.mark.parametrize(
    "rule",
    [
        lambda dy: dy * dy,
        lambda dy: dy * 2.0 + 1.0,
        lambda dy: mg.tensor(dy.numpy() * 2.0),
        lambda dy: dy * (2.02 if mg.is_grad_enabled() else 2.0),
        lambda dy: dy * (2.0 if mg.is_grad_enabled() else 2.02),
    ],
)
def test_a_rule_that_is_not_linear_in_dy_or_another_when_recorded_is_caught(doubled, rule):
    doubled.rule = staticmethod(rule)
    assert "adjoint test of the Jacobian" in str(failure(lambda x: doubled()(x * x), point(3)))


def test_a_wrong_jacobian_is_left_to_the_differences(doubled):
    doubled.rule = staticmethod(lambda dy: dy * 2.02)
    assert check_adjoint(lambda x: doubled()(x * x), point(3)).linear == ()
    with pytest.raises(mg.GradcheckError, match=r"same factor 1\.01"):
        mg.gradcheck(lambda x: doubled()(x * x), point(3))


def test_a_gradient_that_is_no_number_is_caught(doubled):
    doubled.rule = staticmethod(lambda dy: dy * float("nan"))
    assert failure(lambda x: doubled()(x), point(2)).found.error == float("inf")


def test_fixed_inputs_and_empty_ones_are_fine():
    fixed = mg.tensor(np.ones(3))
    assert check_adjoint(lambda a, b: a * b, [fixed, point(3)]).linear == (1,)
    assert check_adjoint(lambda x: x * 2.0, point(0)).error == 0


def test_inputs_that_can_not_be_checked_are_refused():
    with pytest.raises(ValueError, match="no input requires a gradient"):
        check_adjoint(F.tanh, mg.tensor(np.ones(2)))
    for given, kind in ((np.ones(3), "ndarray as input 0"), ([point(2), np.ones(3)], "ndarray as input 1")):
        with pytest.raises(TypeError, match=f"check_adjoint: expected tensors, got {kind}: make it one"):
            check_adjoint(F.tanh, given)
    assert "no output depends" in str(failure(lambda x: x.detach() * 2.0, point(2)))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_function_that_gives_other_values_at_each_call_is_noticed(dtype):
    calls = iter(range(100))
    said = str(failure(lambda x: x * float(next(calls)) + 1.0, point(3, dtype=dtype)))
    assert "output 0 differs between two calls with the same inputs: the function is not determ" in said
