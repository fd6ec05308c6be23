"""Looking into networks at work: who is notified of what, `measure`, `compare`, and `Shadow`.

That a shadow finds a mistake is shown on the foreign device (foreign.py): one is planted in one of its
primitives, and its layer, operation, place and both numbers must be reported.
"""

import contextlib
import copy
import gc
import itertools
import re
import threading
import weakref

import numpy as np
import pytest
from foreign import BoxedArray, ForeignBackend

import minigrad as mg
import minigrad.functional as F
from minigrad import backend, nn, observer, optim
from minigrad.backend.base import Backend
from minigrad.inspect import Difference, Shadow, ShadowError, compare, measure
from minigrad.ops import Operation

GPU = pytest.param("gpu", marks=pytest.mark.gpu)


@pytest.fixture
def foreign():
    backend.register("foreign", ForeignBackend)
    yield "foreign"
    backend._factories.pop("foreign")
    backend._backends.pop("foreign", None)


@pytest.fixture(autouse=True)
def nobody_is_left_watching():
    yield
    left = list(observer.current())
    observer.current().clear()
    assert left == []


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# ---- who is notified of what ----


def called(subject):
    return subject.name if isinstance(subject, Operation) else type(subject).__name__


class Log(observer.Observer):
    """Writes down all that it is notified of."""

    def __init__(self):
        super().__init__()
        self.notified = []

    def begin(self, subject, phase):
        self.notified.append(("begin", called(subject), phase))

    def end(self, subject, phase, inputs, outputs):
        self.notified.append(("end", called(subject), phase))


class Ends(observer.Observer):
    """Keeps what went in and out, and the modules around it."""

    def __init__(self):
        super().__init__()
        self.notified = []

    def end(self, subject, phase, inputs, outputs):
        self.notified.append((called(subject), phase, inputs, outputs, list(self.modules)))

    def of(self, name, phase="forward"):
        return next(rest for found, at, *rest in self.notified if (found, at) == (name, phase))


def test_operations_their_backward_and_an_optimizers_step_are_told_in_order():
    w = mg.tensor([2.0], requires_grad=True)
    optimizer = optim.SGD([w], 0.1)
    with Log() as log:
        (w * w).backward()
        optimizer.step()
    forward = [("begin", "multiply", "forward"), ("end", "multiply", "forward")]
    assert log.notified == [
        *forward,
        ("begin", "multiply", "backward"), *forward, *forward, ("end", "multiply", "backward"),
        ("begin", "add", "forward"), ("end", "add", "forward"),
        ("begin", "SGD", "step"), ("end", "SGD", "step"),
    ]  # fmt: skip


def test_the_tensors_in_and_out_are_told():
    x, start = mg.tensor([2.0, 5.0], requires_grad=True), mg.tensor([1.0, 10.0])
    with Ends() as ends:
        y = x * 3.0
        y.backward(start)
        optim.SGD([x], 0.1).step()
    inputs, outputs, _ = ends.of("multiply")
    assert (inputs[0] is x, inputs[1], outputs[0] is y) == (True, 3.0, True)
    (dy,), (dx, nothing), _ = ends.of("multiply", "backward")
    assert np.array_equal(dy.numpy(), [1.0, 10.0])
    assert np.array_equal(dx.numpy(), [3.0, 30.0])
    assert nothing is None
    assert ends.of("SGD", "step")[:2] == [(), ()]


def test_the_modules_around_an_operation_are_told_the_innermost_last():
    inner = nn.Sequential(nn.Tanh(), nn.Sequential(nn.Sigmoid()))
    network = nn.Sequential(nn.Dense(2, 3), inner, nn.Flatten())
    x = mg.tensor(numbers(4, 2), requires_grad=True)
    with Ends() as ends:
        y = network(x)
        inside = list(ends.modules)
        y.sum().backward()
    assert ends.of("dense")[2] == [network, network[0]]
    assert ends.of("tanh")[2] == [network, inner, inner[0]]
    assert ends.of("sigmoid")[2] == [network, inner, inner[1], inner[1][0]]
    assert ends.of("reshape")[2] == [network, network[2]]
    assert inside == ends.of("sum")[2] == ends.of("tanh", "backward")[2] == []


def test_an_activation_taken_in_the_same_pass_belongs_to_the_layer_before_it():
    network = nn.Sequential(nn.BatchNorm(2), nn.LeakyReLU(0.2))
    with Ends() as ends:
        network(mg.tensor(numbers(4, 2)))
    assert [(name, phase) for name, phase, *_ in ends.notified] == [
        ("batch_norm", "forward"), ("batch_norm", "update"), ("batch_norm", "update"),
    ]  # fmt: skip
    assert ends.of("batch_norm")[2] == [network, network[0]]


def test_a_forward_that_fails_leaves_no_module_behind():
    network = nn.Sequential(nn.Tanh(), nn.Sequential(nn.Dense(3, 2)))
    with Ends() as ends:
        with pytest.raises(ValueError, match="Dense"):
            network(mg.tensor(numbers(4, 2)))
        assert ends.modules == []
        F.tanh(mg.tensor(1.0))
    assert ends.notified[-1][-1] == []


def test_who_begins_to_watch_inside_of_a_module_knows_only_the_modules_further_in():
    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.ends, self.inner = Ends(), nn.Tanh()

        def forward(self, x):
            with self.ends:
                return self.inner(x)

    network = nn.Sequential(Watched())
    with Ends() as outer:
        network(mg.tensor(1.0))
    assert network[0].ends.of("tanh")[2] == [network[0].inner]
    assert outer.of("tanh")[2] == [network, network[0], network[0].inner]


def test_who_watches_may_come_and_go_inside_of_a_module():
    class Door(nn.Module):
        def __init__(self, use):
            super().__init__()
            self.use, self.inner = use, nn.Tanh()

        def forward(self, x):
            self.use()
            return self.inner(x)

    coming, going = Ends(), Ends()
    with contextlib.ExitStack() as stack, contextlib.ExitStack() as later:
        later.enter_context(going)
        network = nn.Sequential(Door(lambda: stack.enter_context(coming)), nn.Sigmoid(), Door(later.close))
        network(mg.tensor(1.0))
        assert coming.modules == going.modules == []
        nn.Tanh()(mg.tensor(1.0))
        assert [type(module) for module in coming.notified[-1][-1]] == [nn.Tanh]
    assert coming.of("sigmoid")[2] == [network[1]]
    assert going.of("sigmoid")[2] == [network, network[1]]
    assert [name for name, *_ in going.notified] == ["tanh", "sigmoid"]


def test_an_operation_is_told_before_it_runs_and_has_no_end_where_it_fails():
    with Log() as log, pytest.raises(ValueError, match="do not broadcast"):
        mg.tensor([1.0, 2.0]) + mg.tensor([1.0, 2.0, 3.0])
    assert log.notified == [("begin", "add", "forward")]


def test_nobody_is_told_anything_before_and_after():
    x, log = mg.tensor([1.0]), Log()
    x + x
    with log:
        x * x
    x - x
    assert {name for _, name, _ in log.notified} == {"multiply"}


def test_nested_observers_are_all_told_and_each_leaves_by_itself():
    x, outer, inner = mg.tensor([1.0]), Log(), Log()
    with outer:
        x + x
        with inner:
            x * x
        x - x
    assert [name for how, name, _ in outer.notified if how == "end"] == ["add", "multiply", "subtract"]
    assert [name for how, name, _ in inner.notified if how == "end"] == ["multiply"]


def test_an_observer_is_told_what_its_own_thread_runs_and_leaves_others_alone():
    x, here, there, entered, done = mg.tensor([1.0]), Log(), Log(), threading.Event(), threading.Event()

    def other():
        with there:
            entered.set()
            done.wait(10)
            x * x

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait(10)
    with here:
        x + x
        done.set()
        thread.join()
    assert {name for _, name, _ in here.notified} == {"add"}
    assert {name for _, name, _ in there.notified} == {"multiply"}


def test_who_came_first_may_leave_first():
    x, first, second = mg.tensor([1.0]), Log(), Log()
    with contextlib.ExitStack() as later:
        with first:
            later.enter_context(second)
        x + x
    assert first.notified == []
    assert {name for _, name, _ in second.notified} == {"add"}


def test_an_exception_ends_the_watching():
    log = Log()
    with pytest.raises(ZeroDivisionError), log:
        raise ZeroDivisionError
    assert observer.current() == []
    mg.tensor(1.0) + 1.0
    assert log.notified == []


@pytest.mark.parametrize("method", ["begin", "end"])
def test_an_observer_that_fails_takes_no_other_with_it(method):
    class Failing(observer.Observer):
        pass

    def fail(*_):
        raise ZeroDivisionError

    setattr(Failing, method, fail)
    x = mg.tensor([1.0])
    with Log() as outer:
        with pytest.raises(ZeroDivisionError), Failing():
            x + x
        assert observer.current() == [outer]
        outer.notified.clear()
        x * x
    assert [name for _, name, _ in outer.notified] == ["multiply", "multiply"]


@pytest.mark.parametrize("method", ["begin", "end"])
def test_nobody_is_told_what_an_observer_does_itself(method):
    work, optimizer = nn.Sequential(nn.Dense(2, 2), nn.Tanh()), None

    class Busy(Log):
        def work(self, *_):
            optimizer.zero_grad()
            work(mg.tensor(numbers(3, 2))).sum().backward()
            optimizer.step()
            self.stacks = [list(each.modules) for each in (busy, other)]

    setattr(Busy, method, Busy.work)
    optimizer = optim.SGD(work.parameters(), 0.1)
    before = work[0].weight.numpy().copy()
    with Log() as other, Busy() as busy:
        nn.Sigmoid()(mg.tensor([1.0]))
    assert other.notified == [("begin", "sigmoid", "forward"), ("end", "sigmoid", "forward")]
    assert {name for _, name, _ in busy.notified} <= {"sigmoid"}
    assert [[type(module) for module in stack] for stack in busy.stacks] == [[nn.Sigmoid], [nn.Sigmoid]]
    assert not np.array_equal(work[0].weight.numpy(), before)


# ---- measure ----

INF, NAN = np.inf, np.nan


@pytest.mark.parametrize(
    ("got", "expected", "error", "place"),
    [
        ([3.0, 4.0], [3.0, 4.0], 0.0, (0,)),
        ([3.0, 4.5], [3.0, 4.0], 0.1, (1,)),
        ([3.0, 3.5], [3.0, 4.0], 0.1, (1,)),
        ([[3.0, 0.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, 4.0]], 0.75, (0, 0)),
        ([[1.0, 2.0], [-9.0, 4.0]], [[1.0, 2.0], [3.0, 4.0]], 12 / 30**0.5, (1, 0)),
        (2.0, 4.0, 0.5, ()),
        ([0.0, 1e-3], [0.0, 0.0], 1e-3, (1,)),  # nothing to measure it by
        ([1.0, NAN], [1.0, 2.0], INF, (1,)),
        ([1.0, 2.0], [NAN, 2.0], INF, (0,)),
        ([1.0, INF], [1.0, -INF], INF, (1,)),
        ([1.0, INF, 2.0], [1.0, INF, 2.0], 0.0, (0,)),
        ([NAN, 3.3, NAN], [NAN, 3.0, NAN], 0.1, (1,)),
        ([-INF, 1.0], [-INF, 0.0], 1.0, (1,)),
        ([INF, NAN], [1.0, NAN], INF, (0,)),
    ],
)
def test_an_error_is_measured_by_norms_and_its_worst_place_named(got, expected, error, place):
    found, where = measure(np.array(got), np.array(expected))
    assert found == pytest.approx(error, rel=1e-12)
    assert where == place
    assert all(type(i) is int for i in where)


def test_other_shapes_are_infinitely_far_apart_and_nothing_is_as_it_should_be():
    assert measure(np.zeros((2, 3)), np.zeros((3, 2))) == (INF, ())
    assert measure(np.ones(1), np.ones(())) == (INF, ())
    assert measure(np.empty((0, 3)), np.empty((0, 3))) == (0.0, ())


def test_an_error_is_measured_in_float64():
    got, expected = np.float32([1e30, 1.0]), np.float32([2e30, 1.0])  # their squares are no float32
    assert measure(got, expected)[0] == pytest.approx(0.5, rel=1e-6)
    assert measure(np.array([True, False]), np.array([True, True])) == (pytest.approx(0.5**0.5), (1,))


# ---- two networks side by side ----


def layers():
    mg.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, 2), nn.LeakyReLU(0.2), nn.BatchNorm(3), nn.Dropout(0.4),
        nn.Sequential(nn.ConvTranspose2d(3, 2, 3, 2), nn.Tanh()),
        nn.Flatten(), nn.Dropout(0.5), nn.Dense(98, 2),
    )  # fmt: skip


IMAGES = numbers(4, 1, 7, 7)


def changed(name, by, index=...):
    network = layers()
    values = dict(network.named_parameters())[name].data
    values[index] += np.float32(by)
    return network


def test_equal_networks_do_not_differ():
    assert compare(layers(), layers(), mg.tensor(IMAGES)) is None


@pytest.mark.parametrize(
    ("name", "layer", "operation"),
    [
        ("0.weight", "0 Conv2d(1, 3)", "convolve"),
        ("0.bias", "0 Conv2d(1, 3)", "convolve"),
        ("2.weight", "2 BatchNorm(3)", "batch_norm"),
        ("2.bias", "2 BatchNorm(3)", "batch_norm"),
        ("4.0.weight", "4.0 ConvTranspose2d(3, 2)", "convolve_input_gradient"),
        ("4.0.bias", "4.0 ConvTranspose2d(3, 2)", "convolve_input_gradient"),
        ("7.weight", "7 Dense(98, 2)", "dense"),
        ("7.bias", "7 Dense(98, 2)", "dense"),
    ],
)
def test_the_first_layer_that_differs_is_named(name, layer, operation):
    found = compare(layers(), changed(name, 0.1), mg.tensor(IMAGES))
    assert (found.layer, found.operation, found.what) == (layer, operation, "forward")
    assert found.error > 1e-3


def test_the_place_and_both_numbers_are_given():
    a, b = layers(), changed("7.bias", 0.5, 1)
    before = mg.random.get_state()
    found = compare(a, b, mg.tensor(IMAGES))
    mg.random.set_state(before)  # for the same Dropouts
    assert found.got == a(mg.tensor(IMAGES)).numpy()[found.place]
    assert found.expected - found.got == pytest.approx(0.5, abs=1e-6)
    assert found.place[1] == 1


def test_a_difference_reads_as_a_sentence():
    found = Difference("d.0 Conv2d(1, 3)", "convolve", "gradient of input 1", 0.0321, (2, 0), 1.5, -2.0)
    said = "convolve, gradient of input 1: error 0.0321; the worst element [2, 0] is 1.5, expected -2.0"
    assert str(found) == f"d.0 Conv2d(1, 3): {said}"
    assert str(Difference("", *list(vars(found).values())[1:])) == said
    assert str(ShadowError(found)) == str(found)
    assert ShadowError(found).difference is found


class Cubed(nn.Module):
    def __init__(self, operation):
        super().__init__()
        self.operation = operation

    def forward(self, x):
        return self.operation()(x)

    def describe(self):
        return "Cubed()"


@pytest.fixture
def cube(monkeypatch):
    """Makes operations of one name, y = x^3 with dx = factor * dy * x^2, that nobody else gets to see."""
    monkeypatch.setattr("minigrad.ops.operation.OPERATIONS", {})

    def make(factor):
        class Cube(Operation):
            keep_inputs = True

            def forward(self, x):
                return x * x * x

            def backward(self, dy):
                return (dy * self.inputs[0] * self.inputs[0] * factor,)

        return Cube

    return make


def test_a_wrong_gradient_is_named(cube):
    right, wrong = (nn.Sequential(nn.Tanh(), Cubed(cube(factor)), nn.Flatten()) for factor in (3.0, 2.0))
    assert compare(right, right, mg.tensor(IMAGES)) is None
    found = compare(wrong, right, mg.tensor(IMAGES))
    assert (found.layer, found.operation, found.what) == ("1 Cubed()", "cube", "gradient of input 0")
    assert found.error == pytest.approx(1 / 3, rel=1e-5)
    assert found.got == pytest.approx(found.expected * 2 / 3, rel=1e-5)


def test_both_networks_are_left_as_they_are():
    a, b = layers(), layers().eval()
    a.train()
    before = [{name: t.numpy().copy() for name, t in network.state_dict().items()} for network in (a, b)]
    assert any(name.endswith("running_mean") for name in before[0])
    with pytest.raises(ValueError, match="other operations run"):  # Dropout and BatchNorm, and neither
        compare(a, b, mg.tensor(IMAGES))
    assert compare(a, a, mg.tensor(IMAGES)) is None
    for network, values in zip((a, b), before, strict=True):
        after = network.state_dict()
        assert all(np.array_equal(after[name].numpy(), value) for name, value in values.items())
        assert all(p.grad is None for p in network.parameters())
    assert all(module.training for _, module in a.named_modules())
    assert not any(module.training for _, module in b.named_modules())
    assert a.state_dict().keys() == before[0].keys()


def test_the_input_is_left_as_it_is():
    x = mg.tensor(IMAGES, requires_grad=True)
    assert compare(layers(), "cpu", x) is None
    assert x.grad is None
    assert np.array_equal(x.numpy(), IMAGES)


def test_dropout_draws_the_same_in_both_and_no_more_than_one_pass_does():
    network = nn.Sequential(nn.Dropout(0.5), nn.Dense(30, 30), nn.Dropout(0.5))
    x = mg.tensor(numbers(20, 30))
    before = mg.random.get_state()
    assert compare(network, network, x) is None
    after = mg.random.get_state()
    mg.random.set_state(before)
    network(x)
    assert mg.random.get_state() == after
    assert after["calls"] == before["calls"] + 2


@pytest.mark.parametrize("arrangement", ["another", "more", "fewer"])
def test_other_operations_can_not_be_compared(arrangement):
    a = nn.Sequential(nn.Dense(2, 2, bias=False), nn.Tanh())
    others = {"another": [nn.Sigmoid()], "more": [nn.Tanh(), nn.Sigmoid()], "fewer": []}[arrangement]
    names = {"another": ", sigmoid", "more": ", tanh, sigmoid", "fewer": ""}[arrangement]
    message = f"compare: other operations run: dense, tanh; and dense{names}"
    b = nn.Sequential(a[0], *others)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        compare(a, b, mg.tensor(numbers(3, 2)))


def test_results_of_other_shapes_are_a_difference():
    found = compare(nn.Dense(3, 2), nn.Dense(3, 4), mg.tensor(numbers(5, 3)))
    assert (found.layer, found.operation) == ("Dense(3, 2)", "dense")
    assert found.what == "forward, of shape (5, 2) instead of (5, 4)"
    assert found.error == INF
    assert np.isnan([found.got, found.expected]).all()


@pytest.mark.parametrize("other", ["foreign", GPU])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_network_is_compared_with_itself_on_another_device(foreign, other, dtype):
    network = layers().to(dtype)
    assert compare(network, other, mg.tensor(IMAGES)) is None
    assert compare(network.to(other), "cpu", mg.tensor(IMAGES)) is None
    assert {p.device for p in network.parameters()} == {other}


def test_a_primitive_that_is_wrong_on_a_device_is_found_there(foreign, monkeypatch):
    monkeypatch.setattr(
        ForeignBackend, "tanh_backward", lambda self, dy, y: Backend.tanh_backward(self, dy, y) * 1.01
    )
    found = compare(layers(), "foreign", mg.tensor(IMAGES))
    assert (found.layer, found.operation, found.what) == ("4.1 Tanh()", "tanh", "gradient of input 0")
    assert found.error == pytest.approx(0.01 / 1.01, rel=1e-3)
    assert found.expected == pytest.approx(found.got * 1.01, rel=1e-5)


def test_networks_of_two_dtypes_differ_by_the_coarser_ones_rounding_alone():
    single, double = layers(), layers().to("float64")
    for a, b in ((single, double), (double, single)):
        assert compare(a, b, mg.tensor(IMAGES)) is None
        assert 1e-10 < compare(a, b, mg.tensor(IMAGES), tolerance=1e-10).error < 1e-6


@pytest.mark.parametrize(("dtype", "within", "beyond"), [("float32", 2e-6, 1e-4), ("float64", 2e-11, 1e-9)])
def test_the_tolerance_is_the_dtypes(dtype, within, beyond):
    def scaled(by):
        mg.manual_seed(0)
        network = nn.Dense(3, 2, bias=False, dtype=dtype)
        network.weight.data = network.weight.data * np.dtype(dtype).type(1 + by)
        return network

    x = mg.tensor(numbers(5, 3))
    for by, differs in ((within, False), (beyond, True)):
        assert (compare(scaled(by), scaled(0.0), x) is not None) == differs
        assert compare(scaled(by), scaled(0.0), x, tolerance=10 * by) is None
        assert compare(scaled(by), scaled(0.0), x, tolerance=by / 10) is not None


def test_what_is_no_number_in_one_alone_is_a_difference():
    a = changed("4.0.bias", NAN, 1)
    found = compare(a, layers(), mg.tensor(IMAGES))
    assert (found.layer, found.what) == ("4.0 ConvTranspose2d(3, 2)", "forward")
    assert found.error == INF
    assert found.place[1] == 1
    assert np.isnan(found.got)
    assert np.isfinite(found.expected)
    assert compare(a, copy.deepcopy(a), mg.tensor(IMAGES)) is None


# ---- a network, and each of its operations again elsewhere ----


def networks(biased=True):
    """Small ones of all kinds of layers; `biased`: also before a BatchNorm, where a bias has no gradient."""
    mg.manual_seed(3)
    generator = nn.Sequential(
        nn.Dense(5, 12, bias=False), nn.BatchNorm(12), nn.ReLU(), nn.Reshape(3, 2, 2),
        nn.ConvTranspose2d(3, 4, 4, 2, 1, bias=biased), nn.BatchNorm(4), nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(4, 2, 4, 2, "same"), nn.Tanh(),
    )  # fmt: skip
    discriminator = nn.Sequential(
        nn.Conv2d(2, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Dropout(0.3),
        nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1, bias=biased), nn.BatchNorm(6), nn.LeakyReLU(0.2),
                      nn.Dropout(0.3)),
        nn.Flatten(), nn.LeakyReLU(0.3), nn.Dense(24, 1),
    )  # fmt: skip
    return {"generator": generator, "discriminator": discriminator}


class Run:
    """Two steps of a small GAN on a device, watched by whatever `watch(networks)` makes."""

    def __init__(self, device, watch=lambda networks: contextlib.nullcontext(), optimizer=optim.Adam,
                 dtype="float32", steps=2):  # fmt: skip
        made = networks(biased=dtype == "float32")
        self.networks = {name: network.to(device).to(dtype) for name, network in made.items()}
        self.optimizers = [optimizer(network.parameters(), 0.01) for network in self.networks.values()]
        self.losses = []
        with watch(self.networks) as self.watcher:
            for step in range(steps):
                self._step(*(mg.tensor(numbers(*shape, seed=step), dtype, device)
                             for shape in ((6, 2, 8, 8), (6, 5))))  # fmt: skip

    def _step(self, real, z):
        generator, discriminator = self.networks.values()
        optimizer_g, optimizer_d = self.optimizers
        fake = generator(z)
        optimizer_d.zero_grad()
        for images, label in ((real, 1.0), (fake.detach(), 0.0)):
            loss = F.binary_cross_entropy_with_logits(discriminator(images), label)
            loss.backward(inputs=optimizer_d.params)
            self.losses.append(loss.item())
        optimizer_d.step()
        optimizer_g.zero_grad()
        loss = F.binary_cross_entropy_with_logits(discriminator(fake), 1.0)
        loss.backward(inputs=optimizer_g.params)
        optimizer_g.step()
        self.losses.append(loss.item())

    def all(self):
        """Every number that a run leaves, by name."""
        found = {"losses": np.array(self.losses), "calls": np.array(mg.random.get_state()["calls"])}
        for name, network in self.networks.items():
            found |= {f"{name}.{key}": t.numpy() for key, t in network.state_dict().items()}
            found |= {f"{name}.{key}.grad": p.grad.numpy() for key, p in network.named_parameters()}
        for i, optimizer in enumerate(self.optimizers):
            state = optimizer.state_dict()
            found |= {
                f"{i}.{key}": value.numpy() if isinstance(value, mg.Tensor) else np.array(value)
                for key, value in state.items()
            }
        return found


class Count(observer.Observer):
    """Counts the results that are to be checked: of operations outside of backward rules, and steps."""

    def __init__(self):
        super().__init__()
        self.count = self.depth = 0

    def begin(self, subject, phase):
        self.depth += phase == "backward"

    def end(self, subject, phase, inputs, outputs):
        self.depth -= phase == "backward"
        if self.depth:
            return
        if phase == "forward":
            self.count += 1
        elif phase == "backward":
            wanted = zip(subject.needs, outputs, strict=True)
            self.count += sum(needed and gradient is not None for needed, gradient in wanted)
        elif phase == "step":
            self.count += len(subject.params) * (1 + len(subject.slots))
        else:
            self.count += 1


def momentum(parameters, lr):
    return optim.SGD(parameters, lr, momentum=0.9, weight_decay=1e-3)


@pytest.mark.parametrize("device", ["foreign", GPU])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", [optim.Adam, optim.SGD, momentum, optim.RMSprop])
def test_a_device_that_is_right_trains_on_under_a_shadow_bit_for_bit(foreign, device, dtype, optimizer):
    counted = Count()
    alone = Run(device, optimizer=optimizer, dtype=dtype)
    expected = alone.all()
    with counted:
        watched = Run(device, Shadow, optimizer, dtype)
    found = watched.all()
    assert found.keys() == expected.keys()
    assert [name for name in expected if not np.array_equal(found[name], expected[name])] == []
    assert watched.watcher.checked >= counted.count > 100
    assert 0 < watched.watcher.worst < {"float32": 1e-5, "float64": 1e-10}[dtype]


def test_the_other_device_may_be_any(foreign):
    watched = Run("cpu", lambda networks: Shadow(networks, "foreign"))
    assert watched.watcher.checked > 100
    assert np.array_equal(watched.losses, Run("cpu").losses)


class Planted:
    """A mistake in a primitive of the foreign device: at `place` its result is `by` too large.

    Args:
        part: which of several results.
        when: from the arguments, whether the mistake is made.
    """

    def __init__(self, name, place=(), by=0.5, part=None, when=lambda *a, **k: True):
        self.name, self.place, self.by, self.part, self.when = name, place, by, part, when
        self.numbers = None  # the first that came out, and what it should have been

    def into(self, monkeypatch):
        monkeypatch.setattr(ForeignBackend, self.name, lambda backend, *a, **k: self._call(backend, *a, **k))
        return self

    def _call(self, device, *arguments, **named):
        result = getattr(Backend, self.name)(device, *arguments, **named)
        if not self.when(*arguments, **named):
            return result
        if self.name == "adam_update":  # in place, on the first argument
            self._spoil(arguments[0].inside)
            return None
        spoiled = np.array((result if self.part is None else result[self.part]).inside)
        self._spoil(spoiled)
        if self.part is None:
            return BoxedArray(spoiled)
        return (*result[: self.part], BoxedArray(spoiled), *result[self.part + 1 :])

    def _spoil(self, array):
        right = array[self.place].item()
        array[self.place] += array.dtype.type(self.by)
        if self.numbers is None:
            self.numbers = array[self.place].item(), right


def shape_is(*shape):
    return lambda x, *rest, **named: x.shape == shape


def without_bias(_x, _weight, bias, *_rest):
    return bias is None


def nth(number):
    calls = itertools.count(1)
    return lambda *_, **__: next(calls) == number


CONV, TRANSPOSED = "discriminator.0 Conv2d(2, 4)", "generator.4 ConvTranspose2d(3, 4)"
INNER, LAST = "discriminator.3.0 Conv2d(4, 6)", "generator.7 ConvTranspose2d(4, 2)"
NORM, DENSE = "discriminator.3.1 BatchNorm(6)", "discriminator.6 Dense(24, 1)"
DROPOUT, LEAKY = "discriminator.3.3 Dropout(0.3)", "discriminator.5 LeakyReLU(0.3)"
LOSS = "mean_logit_binary_cross_entropy"
FORWARD, GRADIENTS = "forward", [f"gradient of input {i}" for i in range(3)]

# A primitive whose result is that of the operation: the place and the numbers are the planted ones.
FAULTS = [
    (Planted("matmul", (4, 7)), "generator.0 Dense(5, 12)", "dense", FORWARD),
    (Planted("dense", (2, 0), when=shape_is(6, 24)), DENSE, "dense", FORWARD),
    (Planted("matmul", (1, 9), when=shape_is(6, 1)), DENSE, "dense", GRADIENTS[0]),
    (Planted("matmul", (0, 8), when=shape_is(1, 6)), DENSE, "dense", GRADIENTS[1]),
    (Planted("convolve", (5, 3, 2, 1), part=0, when=shape_is(6, 2, 8, 8)), CONV, "convolve", FORWARD),
    (Planted("convolve", (0, 5, 1, 0), part=0, when=shape_is(6, 4, 4, 4)), INNER, "convolve", FORWARD),
    (Planted("convolve", (2, 1, 3, 0), part=0, when=without_bias), LAST, "convolve_input_gradient",
     GRADIENTS[0]),
    (Planted("convolve_input_gradient", (3, 2, 0, 1)), TRANSPOSED, "convolve_input_gradient", FORWARD),
    (Planted("convolve_input_gradient", (1, 1, 2, 3), when=without_bias), INNER, "convolve", GRADIENTS[0]),
    (Planted("convolve_weight_gradient", (5, 3, 2, 0)), INNER, "convolve", GRADIENTS[1]),
    (Planted("convolve_weight_gradient", (0, 0, 3, 3), when=shape_is(6, 2, 8, 8)), CONV, "convolve",
     GRADIENTS[1]),
    (Planted("convolve_and_weight_gradient", (3, 1, 0, 2), part=1), LAST, "convolve_input_gradient",
     GRADIENTS[1]),
    (Planted("normalize", (5, 11)), "generator.1 BatchNorm(12)", "batch_norm", FORWARD),
    (Planted("normalize", (0, 3, 3, 3), when=shape_is(6, 4, 4, 4)), "generator.5 BatchNorm(4)", "batch_norm",
     FORWARD),
    (Planted("normalize_backward", (4, 2, 1, 0), part=0), NORM, "batch_norm", GRADIENTS[0]),
    (Planted("normalize_backward", (3,), part=1), NORM, "batch_norm", GRADIENTS[1]),
    (Planted("normalize_backward", (0,), part=2), NORM, "batch_norm", GRADIENTS[2]),
    (Planted("dropout", (1, 2, 1, 1), part=0, when=shape_is(6, 6, 2, 2)), DROPOUT, "dropout", FORWARD),
    (Planted("mask_scale", (1, 2, 1, 1), when=nth(3)), DROPOUT, "dropout", GRADIENTS[0]),
    (Planted("leaky_relu", (5, 23), when=shape_is(6, 24)), LEAKY, "leaky_relu", FORWARD),
    (Planted("leaky_relu_backward", (0, 4), when=shape_is(6, 24)), LEAKY, "leaky_relu", GRADIENTS[0]),
    (Planted("tanh", (0, 1, 7, 0)), "generator.8 Tanh()", "tanh", FORWARD),
    (Planted("tanh_backward", (5, 0, 0, 6)), "generator.8 Tanh()", "tanh", GRADIENTS[0]),
    (Planted("logit_bce", (), part=0), "", LOSS, FORWARD),
    (Planted("logit_bce", (3, 0), part=1), "", LOSS, GRADIENTS[0]),
    (Planted("sum", (2,), when=lambda _x, axes, *_: axes == (0, 2, 3)), INNER, "convolve", GRADIENTS[2]),
    (Planted("sum", (0,), when=lambda _x, axes, *_: axes == (0,)), DENSE, "dense", GRADIENTS[2]),
    (Planted("adam_update", (0, 1, 2, 3), when=shape_is(4, 2, 4, 4)), "", "Adam",
     "parameter 0 after the step"),
    (Planted("adam_update", (5,), when=shape_is(6)), "", "Adam", "parameter 3 after the step"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("planted", "layer", "operation", "what"),
    [pytest.param(*fault, id=f"{fault[0].name}-{fault[1]}-{fault[3]}") for fault in FAULTS],
)
def test_a_mistake_is_reported_with_its_place_and_both_numbers(
    foreign, monkeypatch, planted, layer, operation, what
):
    planted.into(monkeypatch)
    with pytest.raises(ShadowError) as caught:
        Run(foreign, Shadow)
    found = caught.value.difference
    assert (found.layer, found.operation, found.what) == (layer, operation, what)
    assert found.place == planted.place
    got, expected = planted.numbers
    assert found.got == got
    assert found.expected == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert found.error > 1e-3


@pytest.mark.parametrize(
    ("planted", "layer", "operation", "what"),
    [
        (Planted("moments", (2,), part=0, when=shape_is(6, 6, 2, 2)), NORM, "batch_norm", FORWARD),
        (Planted("moments", (1,), part=1, when=shape_is(6, 6, 2, 2)), NORM, "batch_norm", FORWARD),
        (Planted("leaky_relu_backward", (0, 5, 1, 1), when=shape_is(6, 6, 2, 2)), NORM, "batch_norm",
         GRADIENTS[0]),
        (Planted("leaky_relu_backward", (0, 3, 2, 1), when=shape_is(6, 4, 4, 4)), CONV, "convolve",
         GRADIENTS[1]),
        (Planted("leaky_dropout_backward", (0, 3, 2, 1)), CONV, "convolve", GRADIENTS[1]),
        (Planted("dropout", (1, 2, 3, 3), part=0), CONV, "convolve", FORWARD),
        (Planted("mask_scale", (0, 3, 2, 1), when=nth(4)), CONV, "convolve", GRADIENTS[1]),
        (Planted("matmul", (40, 3), when=shape_is(96, 32)), CONV, "convolve", FORWARD),
        (Planted("im2col", (7, 31), when=shape_is(6, 2, 8, 8)), CONV, "convolve", FORWARD),
        (Planted("softplus", (1, 0)), "", LOSS, FORWARD),
        (Planted("sigmoid", (1, 0), when=shape_is(6, 1)), "", LOSS, GRADIENTS[0]),
        (Planted("adam_update", (0,), by=NAN, when=shape_is(1)), "", "Adam", "parameter 7 after the step"),
        (Planted("normalize", (0, 0), by=NAN), "generator.1 BatchNorm(12)", "batch_norm", FORWARD),
    ],
    ids=lambda value: value.name if isinstance(value, Planted) else str(value),
)  # fmt: skip
def test_a_mistake_deep_inside_is_found_where_it_shows_first(
    foreign, monkeypatch, planted, layer, operation, what
):
    planted.into(monkeypatch)
    with pytest.raises(ShadowError) as caught:
        Run(foreign, Shadow)
    found = caught.value.difference
    assert (found.layer, found.operation, found.what) == (layer, operation, what)
    assert found.error > 1e-4


def test_a_dropout_that_forgets_what_it_dropped_is_found_on_the_way_back(foreign, monkeypatch):
    def forgetful(self, x, p, key, counter):
        y, mask = Backend.dropout(self, x, p, key, counter)
        return y, BoxedArray(~mask.inside)

    monkeypatch.setattr(ForeignBackend, "dropout", forgetful)
    with pytest.raises(ShadowError) as caught:
        Run(foreign, Shadow)
    found = caught.value.difference
    assert (found.layer, found.operation, found.what) == (DROPOUT, "dropout", GRADIENTS[0])
    assert 0.0 in (found.got, found.expected)


def test_a_parameter_that_is_left_out_of_a_step_is_found(foreign, monkeypatch):
    monkeypatch.setattr(
        ForeignBackend, "adam_updates",
        lambda self, updates, factors, **constants: Backend.adam_updates(
            self, updates[:-1], lambda: factors()[:-1], **constants
        ),
    )  # fmt: skip
    with pytest.raises(ShadowError, match=r"^Adam, parameter 7 after the step: error") as caught:
        Run(foreign, Shadow)
    assert caught.value.difference.place == (0,)


@pytest.mark.parametrize("optimizer", [optim.SGD, optim.RMSprop])
def test_any_optimizers_step_is_checked(foreign, monkeypatch, optimizer):
    update = optimizer._update

    def spoiled(self, index, p, gradient):
        update(self, index, p, gradient)
        if p.device == "foreign" and index == 2:
            p.data[3, 1, 2, 0] += np.float32(0.01)

    monkeypatch.setattr(optimizer, "_update", spoiled)
    with pytest.raises(ShadowError, match=f"^{optimizer.__name__}, parameter 2 after the step") as caught:
        Run(foreign, Shadow, optimizer)
    found = caught.value.difference
    assert found.place == (3, 1, 2, 0)
    assert found.got - found.expected == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize(("by", "reported"), [(1e-6, False), (8e-6, False), (1.5e-5, True), (1e-3, True)])
@pytest.mark.parametrize("name", ["convolve", "tanh", "convolve_weight_gradient"])
def test_only_an_error_beyond_the_tolerance_is_reported(foreign, monkeypatch, name, by, reported):
    right = getattr(Backend, name)

    def inexact(*arguments, **named):
        result = right(*arguments, **named)
        return (result[0] * (1 + by), *result[1:]) if name == "convolve" else result * (1 + by)

    monkeypatch.setattr(ForeignBackend, name, inexact)
    if reported:
        with pytest.raises(ShadowError) as caught:
            Run(foreign, Shadow)
        assert caught.value.difference.error == pytest.approx(by, rel=0.05)
    else:
        assert Run(foreign, Shadow).watcher.worst == pytest.approx(by, rel=0.5)


def test_the_tolerance_may_be_given_and_goes_by_dtype(foreign, monkeypatch):
    monkeypatch.setattr(ForeignBackend, "tanh", lambda self, x: Backend.tanh(self, x) * (1 + 1e-3))
    given = {"float32": 1e-2, "float64": 1e-4}
    assert Run(foreign, lambda networks: Shadow(networks, "cpu", given)).watcher.checked > 100
    with pytest.raises(ShadowError, match=r"^generator\.8 Tanh\(\): tanh, forward: error 0\.001;"):
        Run(foreign, lambda networks: Shadow(networks, "cpu", given), dtype="float64")


@pytest.mark.parametrize(("times", "reported"), [(0.0, False), (10.0, False), (100.0, True)])
def test_where_terms_cancel_no_more_is_asked_of_a_device_than_the_other_can_do(
    foreign, monkeypatch, times, reported
):
    half = np.random.default_rng(0).standard_normal((40, 300)).astype(np.float32)
    x = np.concatenate([half, half * np.float32(1.0001)], 1)
    w = np.concatenate([np.ones((300, 8)), -np.ones((300, 8))]).astype(np.float32)
    exact = x.astype(np.float64) @ w.astype(np.float64)
    far = (x @ w - exact) * times  # so many times as far off as NumPy's float32
    assert np.linalg.norm(x @ w - exact) > 2e-5 * np.linalg.norm(exact)
    monkeypatch.setattr(
        ForeignBackend, "matmul", lambda self, a, b: BoxedArray((exact + far).astype(np.float32))
    )
    caught = pytest.raises(ShadowError, match=r"^matmul, forward") if reported else contextlib.nullcontext()
    with Shadow({}) as shadow, caught:
        mg.tensor(x, device=foreign) @ mg.tensor(w, device=foreign)
    assert shadow.checked == (0 if reported else 1)


def test_a_gradient_that_is_rounding_noise_is_not_reported(foreign, monkeypatch):
    """A bias before a BatchNorm has none: what is left of it differs wholly where a bit does."""
    noise = "generator.4.bias.grad"
    exact = Run(foreign, steps=1).all()
    right = Backend.normalize_backward

    def rounded_otherwise(self, *arguments):
        dx, *others = right(self, *arguments)
        return (dx * np.float32(1) + dx * BoxedArray(numbers(*dx.shape) * np.float32(1e-7)), *others)

    monkeypatch.setattr(ForeignBackend, "normalize_backward", rounded_otherwise)
    watched = Run(foreign, Shadow, steps=1)
    found = watched.all()
    assert np.linalg.norm(exact[noise]) < 1e-6 * np.linalg.norm(exact["generator.4.weight.grad"])
    assert np.linalg.norm(found[noise] - exact[noise]) > 0.1 * np.linalg.norm(exact[noise])
    assert watched.watcher.checked > 50


@pytest.mark.parametrize("layer", [nn.Conv2d(1, 1, 1), nn.BatchNorm(1)], ids=["convolve", "normalize"])
def test_a_result_next_to_a_kink_may_fall_on_its_other_side(foreign, monkeypatch, layer):
    """The gradient is taken on the side where the result of the device lies."""
    name = {"Conv2d": "convolve", "BatchNorm": "normalize"}[type(layer).__name__]
    layer.weight.data[...] = 1.0
    layer.bias.data[...] = 0.0
    network = nn.Sequential(layer, nn.LeakyReLU(0.2)).to(foreign)
    values = np.array([-1.0, 1e-8, 1.0, 0.7, -0.7], np.float32).reshape(5, 1, 1, 1)
    x, dy = mg.tensor(values, device=foreign, requires_grad=True), mg.tensor(values[::-1], device=foreign)
    assert float(network(x).numpy()[1, 0, 0, 0]) > 0
    Planted(name, (1, 0, 0, 0), -2e-8, {"convolve": 0, "normalize": None}[name]).into(monkeypatch)
    with Shadow({"n": network}) as shadow:
        y = network(x)
        y.backward(dy)
    assert float(y.numpy()[1, 0, 0, 0]) < 0
    assert shadow.checked >= 4
    back, part = {"convolve": ("convolve_input_gradient", None), "normalize": ("normalize_backward", 0)}[name]
    Planted(back, (3, 0, 0, 0), 0.01, part).into(monkeypatch)  # and no mistake is forgiven for it
    with pytest.raises(ShadowError, match="gradient of input 0"), Shadow({"n": network}):
        network(x).backward(dy)


def test_the_use_of_a_network_is_checked_too(foreign, monkeypatch):
    def use(device):
        network = networks()["generator"].to(device).eval()
        with Shadow({"g": network}) as shadow, mg.no_grad():
            network(mg.tensor(numbers(3, 5), device=device))
        return shadow.checked

    assert use(foreign) == 7
    Planted("normalize", (0, 0), when=lambda _x, mean, *_: mean.dtype == "float32").into(monkeypatch)
    with pytest.raises(ShadowError, match=r"^g\.1 BatchNorm\(12\): normalize, forward: error"):
        use(foreign)


def test_a_layer_is_named_by_its_network_and_place(foreign, monkeypatch):
    Planted("matmul", (0, 0)).into(monkeypatch)
    shared = nn.Dense(2, 3).to(foreign)
    x = mg.tensor(numbers(4, 2), device=foreign)
    for known, named in (
        ({"": shared}, "Dense(2, 3): dense"),
        ({"d": shared}, "d Dense(2, 3): dense"),
        ({"": nn.Sequential(nn.Tanh(), shared)}, "1 Dense(2, 3): dense"),
        ({"a": nn.Tanh(), "b": nn.Sequential(nn.Sequential(shared))}, "b.0.0 Dense(2, 3): dense"),
        ({}, "dense"),
    ):
        with pytest.raises(ShadowError, match=f"^{re.escape(named)}, forward: error"), Shadow(known):
            shared(x)


def test_the_innermost_module_with_a_name_counts(foreign, monkeypatch):
    Planted("matmul", (0, 0)).into(monkeypatch)

    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.known = [nn.Dense(2, 3).to("foreign")]  # in a list, where no module is looked for

        def forward(self, x):
            return self.known[0](x)

    network = nn.Sequential(Hidden())
    with pytest.raises(ShadowError, match=r"^n\.0 Hidden\(\): dense, forward"), Shadow({"n": network}):
        network(mg.tensor(numbers(4, 2), device=foreign))


def test_a_tensor_may_move_and_change_its_dtype_under_a_shadow(foreign):
    x = mg.tensor(numbers(3, 2), device=foreign, requires_grad=True)
    with Shadow({}) as shadow:
        y = (x.to("float64") * 2.0).to("cpu").to("float32")
        y.sum().backward()
    assert np.array_equal(x.grad.numpy(), np.full((3, 2), 2.0))
    assert shadow.checked == 8  # two casts, a product and a sum, and back; moving is no result


def test_what_is_no_number_on_both_devices_is_no_difference(foreign):
    x = mg.tensor(np.float32([[-1.0, 0.0, 2.0]]), device=foreign, requires_grad=True)
    with np.errstate(all="ignore"), Shadow({}) as shadow:
        y = F.log(x)
        y.backward(mg.tensor(np.float32([[1.0, 1.0, 1.0]]), device=foreign))
    assert shadow.checked == 2
    assert np.array_equal(y.numpy(), np.float32([[NAN, -INF, np.log(np.float32(2))]]), equal_nan=True)


def test_gradients_of_gradients_run_under_a_shadow(foreign):
    def second(watch):
        x = mg.tensor(numbers(2, 3), device=foreign, requires_grad=True)
        with watch:
            (dx,) = mg.grad((F.tanh(x) * x).sum(), x, create_graph=True)
            (dx * dx).sum().backward()
        return x.grad.numpy()

    shadow = Shadow({})
    assert np.array_equal(second(shadow), second(contextlib.nullcontext()))
    assert shadow.checked > 10


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_shadow_repeats_the_backward_that_ran(foreign, cube, create_graph):
    """The fused one gives another gradient on purpose: on either device the same one runs."""

    class Cube(cube(3.0)):
        def fused_backward(self, dy):
            (dx,) = self.backward(dy)
            return (dx * 5.0,)

    x = mg.tensor(numbers(2, 3), device=foreign, requires_grad=True)
    with Shadow({}) as shadow:
        (dx,) = mg.grad(Cube()(x).sum(), x, create_graph=create_graph)
    assert np.allclose(dx.numpy(), (3.0 if create_graph else 15.0) * x.numpy() ** 2)
    assert shadow.checked == 4


def test_a_graph_is_checked_each_time_it_is_passed(foreign):
    x = mg.tensor(numbers(2, 3), device=foreign, requires_grad=True)
    with Shadow({}) as shadow:
        y = F.tanh(x).sum()
        counts = []
        for _ in range(3):
            mg.grad(y, x, retain_graph=True)
            counts.append(shadow.checked)
    assert counts == [4, 6, 8]


def test_what_began_unwatched_goes_unchecked(foreign):
    x = mg.tensor(numbers(2, 3), device=foreign, requires_grad=True)
    y = F.tanh(x).sum()
    with Shadow({}) as shadow:
        y.backward()
    assert shadow.checked == 0


def test_labels_masks_and_indices_come_along(foreign):
    x = mg.tensor(numbers(3, 4), device=foreign, requires_grad=True)
    with Shadow({}) as shadow:
        picked = mg.where(x > 0, x, 2.0)[[0, 2], 1:]
        (F.cross_entropy(picked, [0, 2]) + F.concatenate([x, x * x]).max()).backward()
        checked = shadow.checked
        integers = mg.tensor(np.arange(6), device=foreign).reshape(2, 3)
    assert shadow.checked == checked > 10  # numbers without rounding are none to be measured
    assert integers.shape == (2, 3)
    assert np.isfinite(x.grad.numpy()).all()


def test_other_observers_are_not_told_what_a_shadow_does(foreign):
    with Log() as alone:
        Run(foreign, steps=1)
    with Log() as outside:
        Run(foreign, Shadow, steps=1)
    log = Log()

    @contextlib.contextmanager
    def inside(networks):
        with Shadow(networks), log:
            yield

    Run(foreign, inside, steps=1)
    assert alone.notified == outside.notified == log.notified


def test_nothing_is_kept_of_an_operation_that_is_gone(foreign):
    x = mg.tensor(numbers(2, 3), device=foreign, requires_grad=True)
    with Shadow({}) as shadow:
        y = F.tanh(x).sum()
        gone = weakref.ref(y.node)
        y.backward()
        del y
        gc.collect()
        assert gone() is None
    assert shadow.checked == 4


def test_an_unknown_device_is_told_before_anything_runs():
    with pytest.raises(ValueError, match="unknown device 'tpu'"):
        Shadow({}, "tpu")
    assert observer.current() == []


def test_a_network_without_parameters_is_compared_on_the_device_that_is_named(foreign, monkeypatch):
    monkeypatch.setattr(ForeignBackend, "tanh", lambda self, x: x * 0)
    assert compare(nn.Sequential(nn.Tanh(), nn.Flatten()), "foreign", mg.tensor(numbers(2, 3))) is not None


def test_a_tolerance_of_0_asks_for_equal_bits():
    a, b = nn.Dense(4, 2), nn.Dense(4, 2)
    b.load_state_dict(a.state_dict())
    b.weight.data = b.weight.data * np.float32(1 + 1e-6)
    assert compare(a, b, mg.tensor(numbers(3, 4)), tolerance=0.0) is not None


def test_an_empty_batch_can_be_compared():
    network = nn.Dense(4, 2)
    assert compare(network, network, mg.tensor(np.zeros((0, 4), np.float32))) is None


def test_an_optimizer_whose_state_is_lost_is_found(foreign, monkeypatch):
    def forgets(self, parameter, gradient, first, second, **rest):
        kept = BoxedArray(second.inside.copy())
        Backend.adam_update(self, parameter, gradient, first, kept, **rest)  # `second` never moves

    monkeypatch.setattr(ForeignBackend, "adam_update", forgets)
    network = nn.Dense(4, 2).to(foreign)
    optimizer = optim.Adam(network.parameters())
    x = mg.tensor(numbers(3, 4), device=foreign)

    def train():
        for _ in range(5):
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(network(x), 1.0).backward()
            optimizer.step()

    with Shadow({"n": network}), pytest.raises(ShadowError, match="second 0 after the step"):
        train()


def test_rounding_noise_in_float64_is_no_mistake(foreign, monkeypatch):
    """A bias before a BatchNorm; the device adds up in another order (backwards)."""

    def backwards(self, x, axes, keepdims=False):
        return BoxedArray(x.inside[::-1, ..., ::-1].copy().sum(axis=axes, keepdims=keepdims))

    monkeypatch.setattr(ForeignBackend, "sum", backwards)
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm(3)).to(foreign).to("float64")
    x = mg.tensor(np.random.default_rng(0).standard_normal((4, 2, 9, 9)), device=foreign)
    with Shadow({"n": network}):
        y = network(x)
        y.backward(mg.tensor(np.random.default_rng(1).standard_normal(y.shape), device=foreign))


def test_after_an_exception_in_a_backward_a_shadow_goes_on(foreign, monkeypatch):
    monkeypatch.setattr(ForeignBackend, "tanh_backward", lambda *_: 1 / 0)
    x = mg.tensor(numbers(2, 3), device=foreign, requires_grad=True)
    with Shadow({}) as shadow:
        with pytest.raises(ZeroDivisionError):
            F.tanh(x).sum().backward()
        before = shadow.checked
        x * x
        assert shadow.checked == before + 1


def test_where_one_number_overflows_the_others_are_still_checked(foreign, monkeypatch):
    def wrong(self, x):
        return BoxedArray(np.float32([np.inf, 999.0]))

    monkeypatch.setattr(type(ForeignBackend.xp), "exp", wrong, raising=False)
    x = mg.tensor(np.float32([100.0, 1.0]), device=foreign)  # to inf and e
    with np.errstate(all="ignore"), Shadow({}), pytest.raises(ShadowError, match="999.0, expected 2.718"):
        F.exp(x)


@pytest.mark.parametrize("size", [1e200, 1e-170])
def test_large_and_small_numbers_are_measured(size):
    with np.errstate(all="ignore"):
        assert measure(np.array([1.0 * size]), np.array([2.0 * size]))[0] == pytest.approx(0.5)


def test_running_statistics_are_checked_too(foreign, monkeypatch):
    monkeypatch.setattr(ForeignBackend, "blend", lambda self, *a: Backend.blend(self, *a) * 2)
    network = nn.BatchNorm(3).to(foreign)
    x = mg.tensor(numbers(4, 3), device=foreign)
    with Shadow({"n": network}), pytest.raises(ShadowError, match="running statistics"):
        network(x)
