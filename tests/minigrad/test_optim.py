"""Optimisers against the same rules in a few lines of plain Python floats."""

import math

import numpy as np
import pytest
from foreign import ForeignBackend

import minigrad as mg
from minigrad import backend, nn, optim

EVERY_DEVICE = True

STEPS = 6
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}


def sgd(p, gradients, lr, momentum=0.0, weight_decay=0.0):
    velocity = 0.0
    for g in gradients:
        velocity = momentum * velocity + g + weight_decay * p
        p -= lr * velocity
    return p


def rmsprop(p, gradients, lr, alpha=0.99, eps=1e-8, weight_decay=0.0):
    square = 0.0
    for g in gradients:
        g += weight_decay * p
        square = alpha * square + (1 - alpha) * g * g
        p -= lr * g / (math.sqrt(square) + eps)
    return p


def adam(p, gradients, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        g += weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        p -= lr * (m / (1 - betas[0] ** t)) / (math.sqrt(v / (1 - betas[1] ** t)) + eps)
    return p


def adam_outside(p, gradients, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    """TensorFlow's: epsilon outside of the bias correction."""
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        g += weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        p -= lr * math.sqrt(1 - betas[1] ** t) / (1 - betas[0] ** t) * m / (math.sqrt(v) + eps)
    return p


def hatted(params, lr=1e-3, **options):
    return optim.Adam(params, lr, epsilon_hat=True, **options)


RULES = {
    "sgd": (optim.SGD, sgd, {"lr": 0.1}),
    "sgd, momentum": (optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9}),
    "sgd, decay": (optim.SGD, sgd, {"lr": 0.1, "weight_decay": 0.05}),
    "sgd, both": (optim.SGD, sgd, {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.05}),
    "rmsprop": (optim.RMSprop, rmsprop, {"lr": 0.01}),
    "rmsprop, all": (optim.RMSprop, rmsprop, {"lr": 0.05, "alpha": 0.8, "eps": 1e-3, "weight_decay": 0.1}),
    "adam": (optim.Adam, adam, {"lr": 0.01}),
    "adam, dcgan": (optim.Adam, adam, {"lr": 2e-4, "betas": (0.5, 0.999)}),
    "adam, all": (optim.Adam, adam, {"lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    "adam, no memory": (optim.Adam, adam, {"lr": 0.05, "betas": (0.0, 0.0)}),
    "epsilon hat": (hatted, adam_outside, {"lr": 0.01}),
    "epsilon hat, all": (hatted, adam_outside, {"lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-2,
                                                "weight_decay": 0.1}),
    "epsilon hat, no memory": (hatted, adam_outside, {"lr": 0.05, "betas": (0.0, 0.0), "eps": 0.1}),
}  # fmt: skip
SHORT = {name: RULES[name] for name in ("sgd, both", "rmsprop, all", "adam, all", "epsilon hat, all")}


def numbers(shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def parameter(values):
    """A parameter on the default device, in the values' own memory where that is the CPU."""
    return mg.Tensor(backend.get().asarray(values), requires_grad=True)


def take_steps(optimizer, params, gradients):
    for step in gradients:
        for p, g in zip(params, step, strict=True):
            p.grad = None if g is None else mg.Tensor(backend.get().asarray(g))
        optimizer.step()


def listed(state):
    """A state dict with lists in the place of tensors, to be compared."""
    return {k: v.numpy().tolist() if isinstance(v, mg.Tensor) else v for k, v in state.items()}


def gradients_for(shapes, dtype="float64", steps=STEPS):
    return [[numbers(s, dtype, seed=100 * t + i) for i, s in enumerate(shapes)] for t in range(1, steps + 1)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", RULES)
def test_several_steps_agree_with_the_rule(name, dtype):
    make, rule, options = RULES[name]
    shapes = [(3, 2), (), (4,)]
    start = [numbers(s, dtype, seed=i) for i, s in enumerate(shapes)]
    gradients = gradients_for(shapes, dtype)
    params = [parameter(s.copy()) for s in start]
    take_steps(make(params, **options), params, gradients)
    for i, p in enumerate(params):
        columns = np.stack([step[i] for step in gradients]).reshape(STEPS, -1).T
        expected = [
            rule(x, column, **options)
            for x, column in zip(start[i].ravel().tolist(), columns.tolist(), strict=True)
        ]
        error = np.linalg.norm(p.numpy().ravel() - expected) / np.linalg.norm(expected)
        assert error <= TOLERANCE[dtype]
        assert p.dtype == dtype
        assert p.shape == start[i].shape


@pytest.mark.parametrize(
    ("make", "rule", "lr"), [(optim.SGD, sgd, 1e-3), (optim.RMSprop, rmsprop, 1e-2), (optim.Adam, adam, 1e-3)]
)
def test_the_defaults_are_pytorchs(make, rule, lr):
    p = parameter(np.array([2.0]))
    take_steps(make([p]), [p], [[np.array([0.5])], [np.array([-3.0])]])
    assert p.item() == pytest.approx(rule(2.0, [0.5, -3.0], lr), rel=1e-14)


# With a constant gradient g each step of Kingma's form is lr g / (g + eps); with epsilon outside, it is
# lr s g / (s g + eps), s = sqrt(1 - b2^t): 1 / (1 + 0.01) three times, and s / (s + 0.01) for s = 0.031623,
# 0.044710 and 0.054745.
@pytest.mark.parametrize(("epsilon_hat", "expected"), [(False, -2.9702970297), (True, -2.4225131927)])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_place_of_epsilon_shows_where_gradients_are_small(epsilon_hat, expected, dtype):
    p = parameter(np.zeros(3, dtype))
    optimizer = optim.Adam([p], lr=1.0, eps=1e-8, epsilon_hat=epsilon_hat)
    take_steps(optimizer, [p], [[np.full(3, 1e-6, dtype)]] * 3)
    np.testing.assert_allclose(p.numpy(), [expected] * 3, rtol=1e-5 if dtype == "float32" else 1e-7)


@pytest.mark.parametrize("epsilon_hat", [False, True])
def test_each_parameter_counts_its_own_steps(epsilon_hat):
    rule = adam_outside if epsilon_hat else adam
    params = [parameter(np.zeros(2)), parameter(np.zeros(2))]
    optimizer = optim.Adam(params, lr=0.1, eps=1e-2, epsilon_hat=epsilon_hat)
    gradients = [1e-2, -3e-2, 2e-2]
    take_steps(optimizer, params, [[np.full(2, g), np.full(2, g) if t else None]
                                   for t, g in enumerate(gradients)])  # fmt: skip
    for p, seen in zip(params, (gradients, gradients[1:]), strict=True):
        expected = rule(0.0, seen, 0.1, eps=1e-2)
        np.testing.assert_allclose(p.numpy(), [expected] * 2, rtol=1e-12)


@pytest.mark.parametrize("name", SHORT)
def test_parameters_change_in_place(name):
    make, _, options = SHORT[name]
    p = parameter(numbers((3,)))
    array = p.data
    take_steps(make([p], **options), [p], gradients_for([(3,)], steps=2))
    assert p.data is array
    assert p.version == 2


@pytest.mark.parametrize("name", SHORT)
def test_parameters_without_a_gradient_are_left_alone(name):
    make, _, options = SHORT[name]
    params = [parameter(numbers((3,), seed=i)) for i in range(2)]
    before = params[1].numpy().tolist()
    optimizer = make(params, **options)
    gradients = gradients_for([(3,), (3,)])
    take_steps(optimizer, params, [[g, None] for g, _ in gradients])
    assert params[1].numpy().tolist() == before
    assert params[1].version == 0
    state = optimizer.state_dict()
    assert state["steps"] == [STEPS, 0]
    assert not any(t.numpy().any() for key, t in state.items() if key.endswith(".1"))
    late = parameter(np.array(before))
    take_steps(make([late], **options), [late], [[g] for _, g in gradients])
    take_steps(optimizer, params, [[None, g] for _, g in gradients])
    assert params[1].numpy().tolist() == late.numpy().tolist()


def test_zero_grad_forgets():
    p = parameter(numbers((3,)))
    optimizer = optim.SGD([p])
    (p * p).sum().backward()
    optimizer.zero_grad()
    assert p.grad is None
    before = p.numpy().tolist()
    optimizer.step()
    assert p.numpy().tolist() == before


# -- state -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", RULES)
def test_a_run_goes_on_from_its_state_bit_for_bit(name, dtype):
    make, _, options = RULES[name]
    shapes = [(3, 2), (4,)]
    gradients = gradients_for(shapes, dtype)
    params = [parameter(numbers(s, dtype, seed=i)) for i, s in enumerate(shapes)]
    optimizer = make(params, **options)
    take_steps(optimizer, params, gradients[:3])
    resumed = [parameter(p.numpy().copy()) for p in params]
    state = optimizer.state_dict()
    take_steps(optimizer, params, gradients[3:])
    other = make(resumed, **options)
    other.load_state_dict(state)
    take_steps(other, resumed, gradients[3:])
    for p, q in zip(params, resumed, strict=True):
        assert p.numpy().tobytes() == q.numpy().tobytes()


def test_the_state_has_a_key_for_each_slot_and_parameter():
    params = [parameter(numbers((2,))), parameter(numbers((3, 1)))]
    every = ["steps", "lr", "weight_decay"]
    assert list(optim.SGD(params).state_dict()) == [*every, "momentum"]
    momentum = optim.SGD(params, momentum=0.9)
    assert list(momentum.state_dict()) == [*every, "momentum", "velocity.0", "velocity.1"]
    assert list(optim.RMSprop(params).state_dict()) == [*every, "alpha", "eps", "square.0", "square.1"]
    state = optim.Adam(params).state_dict()
    own = ["betas", "eps", "epsilon_hat"]
    assert list(state) == [*every, *own, "first.0", "second.0", "first.1", "second.1"]
    assert state["second.1"].shape == (3, 1)


def test_the_state_is_copied_both_ways():
    p = parameter(numbers((3,)))
    optimizer = optim.Adam([p])
    take_steps(optimizer, [p], gradients_for([(3,)], steps=1))
    state = optimizer.state_dict()
    expected = state["first.0"].numpy().tolist()
    optimizer.load_state_dict(state)
    state["first.0"].data[...] = 77.0
    state["steps"][0] = 99
    assert optimizer.state_dict()["first.0"].numpy().tolist() == expected
    assert optimizer.state_dict()["steps"] == [1]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda s: {k: v for k, v in s.items() if k != "second.0"},
            r"missing \['second\.0'\], unexpected \[\]",
        ),
        (lambda s: s | {"first.1": s["first.0"]}, r"missing \[\], unexpected \['first\.1'\]"),
        (lambda s: {k: v for k, v in s.items() if k != "steps"}, r"missing \['steps'\]"),
        (
            lambda s: s | {"second.0": np.zeros(4)},
            r"second\.0: expected float64 of shape \(3,\), got float64 of \(4,\)",
        ),
        (lambda s: s | {"first.0": np.zeros(3, np.float32)}, r"first\.0: expected float64 .*got float32"),
        (lambda s: s | {"steps": [1, 2]}, "2 steps, 1 parameters"),
    ],
    ids=["missing", "unexpected", "no steps", "shape", "dtype", "count"],
)
def test_a_state_that_does_not_fit_changes_nothing(spoil, message):
    p = parameter(numbers((3,)))
    optimizer = optim.Adam([p])
    take_steps(optimizer, [p], gradients_for([(3,)], steps=2))
    before = optimizer.state_dict()
    wrong = spoil({"steps": [9], "first.0": np.ones(3), "second.0": np.ones(3)})
    with pytest.raises(ValueError, match=rf"load_state_dict\(Adam\): .*{message}"):
        optimizer.load_state_dict(wrong)
    assert listed(optimizer.state_dict()) == listed(before)


# -- hyperparameters ---------------------------------------------------------------------------------

OTHERS = {  # an optimizer, and what another one of its kind is made with
    "sgd": (optim.SGD, {"lr": 0.5, "momentum": 0.25, "weight_decay": 0.125}, {"momentum": 0.0}),
    "rmsprop": (optim.RMSprop, {"lr": 0.5, "alpha": 0.75, "eps": 0.125, "weight_decay": 0.25}, {}),
    "adam": (optim.Adam, {"lr": 0.5, "betas": (0.25, 0.75), "eps": 0.125, "weight_decay": 0.25}, {}),
    "epsilon hat": (optim.Adam, {"lr": 0.1, "betas": (0.3, 0.7), "eps": 0.1, "epsilon_hat": True}, {}),
}
MAKES = pytest.mark.parametrize("make", [optim.SGD, optim.RMSprop, optim.Adam])


@pytest.mark.parametrize("by_file", [False, True])
@pytest.mark.parametrize("name", OTHERS)
def test_a_state_brings_the_hyperparameters_with_it(name, by_file, tmp_path):
    make, options, others = OTHERS[name]
    shapes = [(3, 2), (), (1,)]
    params = [parameter(numbers(s, seed=i)) for i, s in enumerate(shapes)]
    optimizer = make(params, **options)
    optimizer.lr = 0.3  # as a schedule does
    gradients = gradients_for(shapes)
    take_steps(optimizer, params, gradients[:3])
    state = optimizer.state_dict()
    for key, value in {**options, "lr": 0.3}.items():
        assert state[key] == value
        assert type(state[key]) is type(value)
    if by_file:
        mg.save(state, tmp_path / "optimizer.safetensors", {"made by": "a test"})
        state = mg.load(tmp_path / "optimizer.safetensors")
    resumed = [parameter(p.numpy().copy()) for p in params]
    other = make(resumed, **others)
    other.load_state_dict(state)
    assert listed(other.state_dict()) == listed(optimizer.state_dict())
    assert [type(v) for v in other.state_dict().values()] == [
        type(v) for v in optimizer.state_dict().values()
    ]
    take_steps(optimizer, params, gradients[3:])
    take_steps(other, resumed, gradients[3:])
    for p, q in zip(params, resumed, strict=True):
        assert p.numpy().tobytes() == q.numpy().tobytes()


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("kept", [(), ("lr",)])
def test_an_older_state_leaves_the_hyperparameters_it_lacks(name, kept):
    make, options, _ = OTHERS[name]
    params = [parameter(numbers((3,)))]
    older = make(params, **{**options, "lr": 0.0625}).state_dict()
    older = {k: v for k, v in older.items() if "." in k or k in ("steps", *kept)}
    optimizer = make(params, **options)
    optimizer.load_state_dict(older)
    found = optimizer.state_dict()
    assert found["lr"] == (0.0625 if kept else options["lr"])
    assert {k: found[k] for k in options if k != "lr"} == {k: v for k, v in options.items() if k != "lr"}


WRONG = [
    ({"lr": float("nan")}, "lr: expected a finite number, got nan"),
    ({"lr": float("inf")}, "lr: expected a finite number, got inf"),
    ({"lr": 10**400}, "lr: expected a finite number"),
    ({"lr": -1}, "expected lr and weight_decay >= 0, got -1 and 0"),
    ({"weight_decay": -0.5}, "expected lr and weight_decay >= 0, got .* and -0.5"),
    ({"lr": "0.1"}, "lr: expected a number, got '0.1'"),
    ({"lr": True}, "lr: expected a number, got True"),
    ({"lr": np.bool_(True)}, "lr: expected a number, got "),
    ({"lr": None}, "lr: expected a number, got None"),
    ({"lr": 1j}, "lr: expected a number, got 1j"),
    ({"lr": [0.1]}, "lr: expected a number, got list"),
    ({"lr": np.ones(1)}, "lr: expected a number, got ndarray"),
    ({"weight_decay": {}}, "weight_decay: expected a number, got dict"),
    ({"eps": 0}, "expected two betas, 0 <= beta < 1, and eps > 0"),
    ({"eps": float("nan")}, "eps: expected a finite number, got nan"),
    ({"betas": (0.9, 1.0)}, r"expected two betas, 0 <= beta < 1, and eps > 0, got \(0\.9, 1\.0\)"),
    ({"betas": (float("nan"), 0.9)}, "betas: expected a finite number, got nan"),
    ({"betas": 0.9}, "expected two betas, such as .*, got 0.9"),
    ({"betas": "ab"}, "expected two betas, such as .*, got 'ab'"),
    ({"betas": np.ones(3)}, "expected two betas, such as .*, got ndarray"),
    ({"betas": (0.9, "0.9")}, "betas: expected a number, got '0.9'"),
    ({"betas": (0.9, 0.99, 0.999)}, "expected two betas, such as .*, got tuple"),
    ({"epsilon_hat": 1}, "epsilon_hat: expected True or False, got 1"),
    ({"epsilon_hat": "yes"}, "epsilon_hat: expected True or False, got 'yes'"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=lambda value: str(value)[:30])
def test_hyperparameters_that_are_wrong_are_told_wherever_they_come_from(wrong, message):
    p = parameter(numbers((3,)))
    with pytest.raises((TypeError, ValueError), match=f"^Adam: {message}"):
        optim.Adam([p], **wrong)
    optimizer = optim.Adam([p])
    take_steps(optimizer, [p], gradients_for([(3,)], steps=1))
    before = listed(optimizer.state_dict())
    for name, value in wrong.items():
        with pytest.raises((TypeError, ValueError), match=f"^Adam: {message}"):
            setattr(optimizer, name, value)
    assert listed(optimizer.state_dict()) == before
    with pytest.raises(ValueError, match=rf"^load_state_dict\(Adam\): {message}"):
        optimizer.load_state_dict({**optimizer.state_dict(), "lr": 0.5, **wrong, "steps": [7]})
    assert listed(optimizer.state_dict()) == before


@MAKES
def test_a_tensor_is_no_rate(make):
    p = parameter(numbers((3,)))
    for lr in (mg.tensor(0.1), mg.tensor([0.1])):
        with pytest.raises(TypeError, match=rf"{make.__name__}: lr: expected a number, got Tensor: give its"):
            make([p], lr=lr)
        optimizer = make([p])
        with pytest.raises(TypeError, match="lr: expected a number, got Tensor"):
            optimizer.lr = lr
    with pytest.raises(ValueError, match="Adam: expected two betas, .*got Tensor"):
        optim.Adam([p], betas=mg.tensor([0.9, 0.999]))
    with pytest.raises(TypeError, match="Adam: betas: expected a number, got Tensor"):
        optim.Adam([p], betas=(mg.tensor(0.9), 0.999))


@pytest.mark.parametrize(
    "lr", [np.float32(0.5), np.float64(0.5), np.array(0.5), np.array(0.5, np.float16)], ids=repr
)
@MAKES
def test_numbers_of_numpy_are_taken_as_pythons(make, lr):
    p, q = (parameter(numbers((3,), "float32")) for _ in range(2))
    optimizer = make([p], lr=lr)
    assert (type(optimizer.lr), optimizer.lr) == (float, 0.5)
    optimizer.lr = 0.25
    optimizer.lr = lr
    assert (type(optimizer.lr), optimizer.lr) == (float, 0.5)
    gradients = gradients_for([(3,)], "float32")
    take_steps(optimizer, [p], gradients)
    take_steps(make([q], lr=0.5), [q], gradients)
    assert p.numpy().tobytes() == q.numpy().tobytes()
    assert make([p], lr=np.int64(1)).lr == 1.0
    adam = optim.Adam([p], betas=np.array([0.5, 0.75]), epsilon_hat=np.bool_(True))
    assert (adam.betas, adam.epsilon_hat) == ((0.5, 0.75), True)
    assert optim.Adam([p], betas=[np.float64(0.5), 0]).betas == (0.5, 0.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.Adam([p], lr=1.0, eps=1e-30),
        lambda p: optim.RMSprop([p], lr=1.0, alpha=0.0, eps=1e-30),
        lambda p: optim.SGD([p], lr=1.0),
        lambda p: optim.SGD([p], lr=1.0, momentum=1e-30),
    ],
    ids=["adam", "rmsprop", "sgd", "momentum"],
)
def test_a_rate_that_a_schedule_sets_is_that_of_the_next_step(make):
    p = parameter(np.zeros(1))
    optimizer = make(p)
    for lr in (1.0, 0.5, 0.25):  # with a constant gradient of 1 each step is lr
        optimizer.lr = lr
        take_steps(optimizer, [p], [[np.ones(1)]])
    assert p.item() == pytest.approx(-1.75, rel=1e-12)


@pytest.mark.parametrize("make", [optim.SGD, optim.RMSprop], ids=["sgd", "rmsprop"])
def test_the_rate_has_the_digits_of_each_parameter(make):
    """Of a float32 parameter and a float64 one in the same optimizer."""
    both = [mg.tensor(np.zeros(1), dtype, requires_grad=True) for dtype in ("float32", "float64")]
    optimizer = make(both, lr=0.1, **({"alpha": 0.0, "eps": 1e-30} if make is optim.RMSprop else {}))
    for p in both:
        p.grad = mg.tensor(np.ones(1), p.dtype)
    optimizer.step()
    assert [p.item() for p in both] == [-float(np.float32(0.1)), -0.1]


def test_momentum_that_is_set_later_has_its_velocity():
    p = parameter(np.zeros(1))
    optimizer = optim.SGD([p], lr=1.0)
    ones = [[np.ones(1)]]
    take_steps(optimizer, [p], ones)  # to -1
    optimizer.momentum = 0.5
    take_steps(optimizer, [p], ones * 2)  # velocities 1 and 1.5: to -3.5
    assert p.item() == -3.5
    assert optimizer.state_dict()["velocity.0"].item() == 1.5
    optimizer.momentum = 0
    take_steps(optimizer, [p], ones)
    assert p.item() == -4.5
    assert list(optimizer.state_dict()) == ["steps", "lr", "weight_decay", "momentum"]
    optimizer.momentum = 0.5  # from rest
    take_steps(optimizer, [p], ones)
    assert p.item() == -5.5


STATES = [
    ({"steps": ["1"]}, r"steps: expected integers of at least 0, got \['1'\]"),
    ({"steps": [-1]}, r"steps: expected integers of at least 0, got \[-1\]"),
    ({"steps": [1.5]}, "steps: expected integers of at least 0"),
    ({"steps": [True]}, "steps: expected integers of at least 0"),
    ({"steps": [2**63]}, "steps: expected integers of at least 0"),
    ({"steps": np.array([float("nan")])}, "steps: expected integers of at least 0"),
    ({"steps": 3}, "steps: expected a list of 1 integers, got 3"),
    ({"steps": None}, "steps: expected a list of 1 integers, got None"),
    ({"steps": np.array([1, 2])}, "steps: expected a list of 1 integers, got ndarray"),
    ({"first.0": None}, r"first\.0: expected float64 of shape \(3,\), got None"),
    ({"first.0": [0.0, 0.0, 0.0]}, r"first\.0: expected float64 of shape \(3,\), got list"),
    ({"first.0": 0.0}, r"first\.0: expected float64 of shape \(3,\), got 0\.0"),
    ({"first.0": np.ma.masked_array(np.zeros(3), [True, False, False])}, r"first\.0: .*\.filled\(value\)"),
    ({"momentum": 0.9}, r"missing \[\], unexpected \['momentum'\]"),
    ({7: 0.9, "x": 1}, r"missing \[\], unexpected \[7, 'x'\]"),
]


@pytest.mark.parametrize(("wrong", "message"), STATES, ids=lambda value: str(value)[:30])
def test_a_state_of_wrong_kinds_is_told_and_changes_nothing(wrong, message):
    p = parameter(numbers((3,)))
    optimizer = optim.Adam([p])
    take_steps(optimizer, [p], gradients_for([(3,)], steps=1))
    before = listed(optimizer.state_dict())
    with pytest.raises(ValueError, match=rf"^load_state_dict\(Adam\): {message}"):
        optimizer.load_state_dict({**optimizer.state_dict(), "lr": 0.5, **wrong})
    assert listed(optimizer.state_dict()) == before
    for state in ("optimizer.safetensors", [1], None):
        with pytest.raises(ValueError, match=r"expected what state_dict or mg\.load gives, got"):
            optimizer.load_state_dict(state)


# -- errors ------------------------------------------------------------------------------------------


@MAKES
def test_what_holds_parameters_is_not_taken_for_them(make):
    model, name = nn.Sequential(nn.Dense(2, 3), nn.Dense(3, 1)), make.__name__
    for module in (model, model[0]):
        with pytest.raises(TypeError, match=rf"{name}: expected an iterable .*: give its parameters\(\)"):
            make(module)
    with pytest.raises(ValueError, match=r"got Dense \(give its parameters\(\)\) at 0"):
        make(list(model))
    with pytest.raises(TypeError, match=r"got one dict: give its values\(\)"):
        make(dict(model.named_parameters()))
    with pytest.raises(ValueError, match=r"got tuple \(give parameters\(\), not named_parameters"):
        make(model.named_parameters())
    with pytest.raises(ValueError, match=r"got dict \(groups of parameters need an optimizer each\) at 0"):
        make([{"params": list(model.parameters())}])
    for nothing in (None, 3):
        with pytest.raises(TypeError, match=f"{name}: expected an iterable of parameters, got one "):
            make(nothing)
    read = model.parameters()
    assert len(list(read)) == 4
    with pytest.raises(ValueError, match="no parameters given: .*an iterator that was used before"):
        make(read)
    p = parameter(numbers((2,)))
    with pytest.raises(ValueError, match="got one that requires none .* at 1"):
        make([p, mg.tensor([1.0])])
    with pytest.raises(ValueError, match="got one that was computed .* at 0"):
        make([p * 2])


@pytest.mark.cpu_only("a second device beside the default one")
@MAKES
def test_parameters_of_two_devices_move_like_those_of_one(make):
    backend.register("foreign", ForeignBackend)
    try:
        start, gradients = numbers((3,)), gradients_for([(3,), (3,)])
        params = [mg.tensor(start, device=device, requires_grad=True) for device in ("cpu", "foreign")]
        optimizer = make(params, lr=0.1)
        for first, second in gradients:
            for p, g in zip(params, (first, second), strict=True):
                p.grad = mg.tensor(g, device=p.device)
            optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
        alone = [parameter(start.copy()), parameter(start.copy())]
        take_steps(make(alone, lr=0.1), alone, gradients)
        for p, q in zip(params, alone, strict=True):
            np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-13)
    finally:
        backend._factories.pop("foreign")
        backend._backends.pop("foreign", None)


@pytest.mark.parametrize("make", [optim.SGD, optim.RMSprop, optim.Adam])
def test_parameters_that_cannot_be_learned_are_refused(make):
    name, p = make.__name__, parameter(numbers((2,)))
    with pytest.raises(ValueError, match=f"{name}: no parameters given"):
        make([])
    with pytest.raises(ValueError, match=f"{name}: expected tensors that require a gradient"):
        make([p, mg.tensor([1.0])])
    with pytest.raises(ValueError, match=f"{name}: expected tensors"):
        make([np.zeros(2)])
    with pytest.raises(ValueError, match=f"{name}: a parameter is given twice"):
        make([p, p])
    with pytest.raises(ValueError, match=f"{name}: expected lr and weight_decay >= 0, got -1 and 0"):
        make([p], lr=-1)
    with pytest.raises(ValueError, match=f"{name}: expected lr and weight_decay >= 0"):
        make([p], weight_decay=-0.1)


@pytest.mark.parametrize("make", [optim.SGD, optim.RMSprop, optim.Adam])
def test_a_computed_tensor_is_no_parameter(make):
    p = parameter(numbers((2,)))
    with pytest.raises((TypeError, ValueError), match=make.__name__):
        make([p * 2])


@pytest.mark.parametrize("make", [optim.SGD, optim.RMSprop, optim.Adam])
def test_one_tensor_is_no_list_of_parameters(make):
    with pytest.raises((TypeError, ValueError), match=make.__name__):
        make(parameter(numbers((2,))))


def test_arguments_out_of_range_are_refused():
    p = parameter(numbers((2,)))
    with pytest.raises(
        ValueError, match=r"Adam: expected two betas, 0 <= beta < 1, and eps > 0, got \(0\.9, 1\.0\)"
    ):
        optim.Adam([p], betas=(0.9, 1.0))
    for flag in (1, None, "yes"):
        with pytest.raises(TypeError, match=r"Adam: epsilon_hat: expected True or False, got "):
            optim.Adam([p], epsilon_hat=flag)
    with pytest.raises(ValueError, match="Adam: .*eps > 0"):
        optim.Adam([p], eps=0)
    with pytest.raises(ValueError, match=r"RMSprop: expected 0 <= alpha < 1 and eps > 0, got 1\.5"):
        optim.RMSprop([p], alpha=1.5)
    with pytest.raises(ValueError, match="SGD: .*momentum"):
        optim.SGD([p], momentum=-0.5)


# -- in use ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (optim.SGD, {"lr": 0.1}),
        (optim.SGD, {"lr": 0.05, "momentum": 0.8}),
        (optim.RMSprop, {"lr": 0.01}),
        (optim.Adam, {"lr": 0.05}),
    ],
    ids=["SGD", "momentum", "RMSprop", "Adam"],
)
def test_a_quadratic_is_minimised(make, options):
    target = mg.tensor(np.array([1.0, -2.0, 0.5]))
    curvature = mg.tensor(np.array([1.0, 3.0, 0.5]))
    p = parameter(np.zeros(3))
    optimizer = make([p], **options)
    for _ in range(500):
        optimizer.zero_grad()
        (curvature * (p - target) ** 2).sum().backward()
        optimizer.step()
    np.testing.assert_allclose(p.numpy(), [1.0, -2.0, 0.5], atol=0.01)


def test_decay_alone_pulls_to_zero():
    p = parameter(np.array([1.0, -1.0]))
    optimizer = optim.SGD([p], lr=0.1, weight_decay=0.5)
    take_steps(optimizer, [p], [[np.zeros(2)]] * 10)
    np.testing.assert_allclose(p.numpy(), [0.95**10, -(0.95**10)], rtol=1e-13)


def test_a_small_network_learns_xor():
    mg.manual_seed(3)
    x = mg.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    labels = mg.tensor([[0.0], [1.0], [1.0], [0.0]])
    model = nn.Sequential(nn.Dense(2, 8), nn.Tanh(), nn.Dense(8, 1))
    optimizer = optim.Adam(model.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss = mg.functional.binary_cross_entropy_with_logits(model(x), labels)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    assert ((model(x) > 0) == (labels > 0.5)).numpy().all()


@pytest.mark.parametrize("name", SHORT)
def test_a_parameter_of_many_slices_moves_like_its_pieces(name):
    make, _, options = SHORT[name]
    count, cuts = 1_100_003, [65_537, 700_001]
    start, gradients = numbers(count, "float32"), gradients_for([(count,)], "float32", steps=2)
    whole = parameter(start.copy())
    take_steps(make([whole], **options), [whole], gradients)
    pieces = [parameter(piece.copy()) for piece in np.split(start, cuts)]
    take_steps(make(pieces, **options), pieces, [np.split(g, cuts) for (g,) in gradients])
    assert whole.numpy().tobytes() == b"".join(p.numpy().tobytes() for p in pieces)


@pytest.mark.cpu_only("the pool of threads")
def test_adams_steps_are_the_same_on_any_number_of_threads():
    pool = backend.get("cpu").pool
    before, found = pool.threads, set()
    start, gradients = numbers(300_011, "float32"), gradients_for([(300_011,)], "float32", steps=2)
    try:
        for threads in (1, 2, 3):
            pool.resize(threads)
            p = parameter(start.copy())
            take_steps(optim.Adam([p]), [p], gradients)
            found.add(p.numpy().tobytes())
    finally:
        pool.resize(before)
    assert len(found) == 1


ORDERS = {
    "transposed": lambda a: a.T.copy().T,
    "every other": lambda a: a.repeat(2, axis=1)[:, ::2],
    "reversed": lambda a: a[::-1].copy()[::-1],
}


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("which", ["parameter", "gradient", "both"])
def test_memory_order_makes_no_difference(name, order, which):
    make, _, options = SHORT[name]
    to_device = backend.get().asarray

    def laid_out(values):
        return ORDERS[order](to_device(values))

    start, gradients = numbers((5, 4)), gradients_for([(5, 4)])
    plain = parameter(start.copy())
    take_steps(make([plain], **options), [plain], gradients)
    array = laid_out(start) if which != "gradient" else start.copy()
    assert which == "gradient" or not array.flags.c_contiguous
    p = parameter(array)
    optimizer = make([p], **options)
    take_steps(optimizer, [p], [[laid_out(g) if which != "parameter" else g] for (g,) in gradients])
    np.testing.assert_allclose(p.numpy(), plain.numpy(), rtol=1e-13)
    optimizer.load_state_dict(optimizer.state_dict())
    take_steps(optimizer, [p], gradients)
    assert np.isfinite(p.numpy()).all()
