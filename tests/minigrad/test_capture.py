"""A captured step does, bit for bit, what the step does; and says what can't be captured.

Each training is done twice, by the step itself and by its capture. All that both leave is compared as bytes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
from counting import GRAPHS, TO_DEVICE, TO_HOST, required_counter

import minigrad as mg
import minigrad.functional as F
from minigrad import backend, nn, optim, random
from minigrad.inspect import profile

gpu_only = pytest.mark.gpu

OPTIMIZERS = {
    "Adam": lambda params: optim.Adam(params, 1e-2, weight_decay=0.01),
    "Adam, epsilon_hat": lambda params: optim.Adam(params, 1e-2, epsilon_hat=True),
    "SGD": lambda params: optim.SGD(params, 1e-2, weight_decay=0.01),
    "SGD, momentum": lambda params: optim.SGD(params, 1e-2, 0.9),
    "RMSprop": lambda params: optim.RMSprop(params, 1e-3),
}


@pytest.fixture
def counts():
    """Gives the three counts so far; only the stand-in for a GPU counts."""
    return required_counter(TO_DEVICE, TO_HOST, GRAPHS)


class Run:
    """The training of a small network, by its step or by the capture of that."""

    def __init__(self, captured, optimizer="Adam", dtype="float32", device="gpu"):
        mg.manual_seed(3)
        self.device, self.dtype = device, dtype
        self.network = nn.Sequential(
            nn.Conv2d(2, 4, 3, 2, 1), nn.BatchNorm(4), nn.LeakyReLU(0.2), nn.Dropout(0.3),
            nn.ConvTranspose2d(4, 4, 4, 2, 1), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Dense(144, 3),
        ).to(device).to(dtype)  # fmt: skip
        self.optimizer = OPTIMIZERS[optimizer](self.network.parameters())
        self.noise = mg.Generator(5, 1)
        self.calls, self.results = 0, []
        self.step = mg.capture(self.plain) if captured else self.plain

    def plain(self, x, labels, scale=1.0):
        self.calls += 1  # of the Python code
        self.optimizer.zero_grad()
        z = mg.from_host(lambda: self.noise.normal(x.shape, self.dtype), x.shape, self.dtype, self.device)
        y = self.network(x * scale + z)
        loss = F.cross_entropy(y, labels)
        loss.backward()
        self.optimizer.step()
        return loss.detach(), {"mean": y.detach().mean(axis=0)}

    def batch(self, count=4):
        """Images and labels that are others in each step."""
        rng = np.random.default_rng(len(self.results))
        images = rng.standard_normal((count, 2, 6, 6)).astype(self.dtype)
        return mg.tensor(images, device=self.device), mg.tensor(rng.integers(0, 3, count), device=self.device)

    def do(self, steps=1, count=4, **more):
        for _ in range(steps):
            self.results.append(self.step(*self.batch(count), **more))

    def left(self):
        """All that the training has left."""
        numbers = [t.numpy() for loss, others in self.results for t in (loss, *others.values())]
        numbers += [t.numpy() for t in self.network.state_dict().values()]
        numbers += [p.grad.numpy() for p in self.network.parameters() if p.grad is not None]
        state = self.optimizer.state_dict()
        numbers += [t.numpy() for t in state.values() if isinstance(t, mg.Tensor)]
        return [(a.dtype, a.shape, a.tobytes()) for a in numbers], (
            state["steps"], self.noise.state, random.get_state()
        )  # fmt: skip


def both(train, *args, **more):
    """Everything that a training leaves, by the step itself and by its capture; and the captured run."""
    runs, left = [Run(captured, *args, **more) for captured in (False, True)], []
    for run in runs:
        mg.manual_seed(3)
        train(run)
        left.append(run.left())
    return *left, runs[1]


# ---- the same bits ----


@gpu_only
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_captured_step_leaves_what_the_step_leaves(optimizer, dtype):
    expected, found, run = both(lambda run: run.do(6), optimizer, dtype)
    assert found == expected
    assert run.calls == 3  # two, and the one that takes down the launches
    assert run.step.is_captured


@gpu_only
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_schedule_of_the_rate_needs_no_new_capture(optimizer):
    def train(run):
        for k in range(6):
            run.optimizer.lr = 0.02 / (k + 1)
            run.do()

    expected, found, run = both(train, optimizer)
    assert found == expected
    assert run.calls == 3


@gpu_only
def test_a_replay_is_one_launch_and_one_copy(counts):
    run = Run(True)
    run.do(4)
    batch = run.batch()
    before = counts()
    run.step(*batch)
    assert (counts() - before).tolist() == [1, 0, 1]


@gpu_only
def test_other_batches_go_in_between_uncaptured(counts):
    def train(run):
        run.do(4)
        run.do(1, count=3)
        run.do(2)
        run.do(1, scale=0.5)
        run.do(1)

    expected, found, run = both(train)
    assert found == expected
    assert run.calls == 5
    before = counts()
    run.do(1)
    assert (counts() - before)[2] == 1


@gpu_only
def test_what_comes_often_takes_the_place_of_the_old(counts):
    def train(run):
        run.do(4)
        run.do(4, count=3)
        run.do(2)

    expected, found, run = both(train)
    assert found == expected
    assert run.calls == 3 + 3 + 2


@gpu_only
def test_what_comes_now_and_then_never_takes_the_place_of_the_old():
    def train(run):
        run.do(3)
        for _ in range(4):
            run.do(2)
            run.do(1, count=3)

    expected, found, run = both(train)
    assert found == expected
    assert run.calls == 3 + 4


@gpu_only
def test_calls_of_two_kinds_in_turn_are_not_captured():
    def train(run):
        for _ in range(3):
            run.do(1)
            run.do(1, count=3)
        assert not getattr(run.step, "is_captured", False)
        run.do(4)

    expected, found, run = both(train)
    assert found == expected
    assert run.calls == 6 + 3
    assert run.step.is_captured


@gpu_only
def test_a_call_that_raises_counts_for_none():
    x, calls = mg.tensor([1.0], device="gpu"), []

    def step():
        calls.append(len(calls))
        if len(calls) == 2:
            raise Mistake
        return x * 2

    captured = mg.capture(step)
    captured()
    with pytest.raises(Mistake):
        captured()
    for _ in range(4):
        assert captured().item() == 2.0
    assert len(calls) == 2 + 3


@gpu_only
def test_a_step_that_is_observed_goes_in_between_uncaptured():
    def train(run):
        run.do(4)
        with profile() as seen:
            run.do(1)
        assert "convolve" in {event.name for event in seen.events}
        run.do(2)

    expected, found, run = both(train)
    assert found == expected
    assert run.calls == 4


@gpu_only
def test_so_does_one_in_another_mode_and_one_without_gradients():
    def train(run):
        run.do(4)
        run.network[1].eval()
        run.do(1)
        run.network[1].train()
        run.do(1)
        run.network.eval()
        run.do(1)
        run.network.train()
        run.do(1)

    expected, found, run = both(train)
    assert found == expected
    assert run.calls == 5

    x = mg.tensor(np.ones((2, 2), np.float32), device="gpu", requires_grad=True)
    recorded = mg.capture(lambda: mg.tensor((x * 2).requires_grad, device="gpu", dtype="float32"))
    with mg.no_grad():
        assert [recorded().item() for _ in range(4)] == [0.0] * 4
    assert recorded().item() == 1.0


@gpu_only
def test_hooks_of_modules_are_called_in_every_step():
    called = []

    def train(run):
        run.do(4)
        before = len(called)
        hooks = [
            run.network[0].register_forward_hook(lambda *_: called.append("forward")),
            run.network[0].register_backward_hook(lambda *_: called.append("backward")),
        ]
        run.do(2)
        assert called[before:] == ["forward", "backward"] * 2
        for hook in hooks:
            hook.remove()
        run.do(1)

    expected, found, run = both(train)
    assert found == expected
    assert run.calls == 5


@gpu_only
def test_tf32_goes_in_between_uncaptured():
    gpu = backend.get("gpu")

    def train(run):
        run.do(4)
        gpu.allow_tf32(True)
        try:
            run.do(1)
        finally:
            gpu.allow_tf32(False)
        run.do(1)

    expected, found, run = both(train)
    assert found == expected
    assert run.calls == 4


# ---- other memory ----


def load_module(run):
    state = run.network.state_dict()
    run.network.load_state_dict({name: t.numpy() * 0.5 for name, t in state.items()})


def load_optimizer(run):
    state = run.optimizer.state_dict()
    first = {name: t.numpy() * 0.5 for name, t in state.items() if name.startswith("first")}
    run.optimizer.load_state_dict({**state, **first, "steps": [n + 5 for n in state["steps"]]})


def assign_data(run):
    weight = run.network[0].weight
    weight.data = weight.data * 0.5


def write_in_place(run):
    with mg.no_grad():
        for p in run.network.parameters():
            p *= 0.5


def assign_statistics(run):
    run.network[1].running_mean.data = run.network[1].running_mean.data + 1


def assign_module(run):
    old = run.network[0].weight
    run.network[0].weight = nn.Parameter(old.data * 0.5)
    run.optimizer = optim.Adam(run.network.parameters(), 1e-2)


def change_hyperparameter(run):
    run.optimizer.betas = (0.5, 0.9)


def freeze(run):
    run.network[0].weight.requires_grad = False


CHANGES = {
    "a module's load_state_dict": (load_module, 0),
    "an optimizer's load_state_dict": (load_optimizer, 3),
    "an assignment to .data": (assign_data, 3),
    "an operation in place": (write_in_place, 0),
    "an assignment to a buffer's .data": (assign_statistics, 3),
    "another parameter": (assign_module, 3),
    "another hyperparameter": (change_hyperparameter, 3),
    "a frozen parameter": (freeze, 3),
}


@gpu_only
@pytest.mark.parametrize(("change", "calls"), CHANGES.values(), ids=CHANGES)
def test_a_change_of_what_the_step_uses_is_seen(change, calls):
    def train(run):
        run.do(4)
        change(run)
        run.do(5)

    expected, found, run = both(train)
    assert found == expected
    assert run.calls == 3 + calls
    assert run.step.is_captured


@gpu_only
def test_a_network_that_is_moved_away_and_back_is_captured_anew():
    def train(run):
        run.do(4)
        run.network.to("cpu").to("gpu")
        run.optimizer = optim.Adam(run.network.parameters(), 1e-2)
        run.do(5)

    expected, found, run = both(train)
    assert found == expected
    assert run.calls == 6


@gpu_only
def test_two_captures_share_their_parameters():
    def train(run):
        other = mg.capture(run.plain) if run.step is not run.plain else run.plain
        for _ in range(5):
            run.do()
            run.results.append(other(*run.batch(3)))

    expected, found, run = both(train)
    assert found == expected
    assert run.calls == 6


@gpu_only
def test_a_captured_step_may_be_a_part_of_another():
    def train(run):
        inner = run.step
        run.step = mg.capture(lambda *batch: inner(*batch)) if inner is not run.plain else inner
        run.do(6)

    expected, found, run = both(train)
    assert found == expected
    assert run.calls == 3


@gpu_only
def test_versions_tell_of_the_changes_of_a_replay():
    """A graph that needs a weight's old values notices that a replay has changed them."""
    run = Run(True)
    run.do(4)
    weight = run.network[8].weight
    loss = (weight * weight).sum()
    run.do(1)
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


@gpu_only
def test_gradients_that_are_cleared_are_there_again_after_a_replay():
    run = Run(True)
    run.do(4)
    run.optimizer.zero_grad()
    assert all(p.grad is None for p in run.network.parameters())
    run.do(1)
    assert all(p.grad is not None for p in run.network.parameters())


# ---- arguments and results ----


@dataclass
class Record:
    total: mg.Tensor
    name: str


class Pair(NamedTuple):
    first: mg.Tensor
    second: int


@gpu_only
def test_results_of_every_form_are_the_caller_s():
    def step(x, *, power):
        y = x**power
        return Record(y.sum(), "sum"), [y, None], {"pair": Pair(y.mean(axis=0), 7)}, (y > 4, y.data.ndim)

    captured, kept = mg.capture(step), []
    for k in range(6):
        x = mg.tensor(np.arange(6, dtype=np.float32).reshape(2, 3) + k, device="gpu")
        kept.append((captured(x, power=2), step(x, power=2)))
    for found, expected in kept:
        assert found[0].total.item() == expected[0].total.item()
        assert found[0].name == "sum"
        assert np.array_equal(found[1][0].numpy(), expected[1][0].numpy())
        assert found[1][1] is None
        assert isinstance(found[2]["pair"], Pair)
        assert np.array_equal(found[2]["pair"].first.numpy(), expected[2]["pair"].first.numpy())
        assert found[2]["pair"].second == 7
        assert np.array_equal(found[3][0].numpy(), expected[3][0].numpy())
        assert found[3][0].dtype == "bool"
        assert found[3][1] == 2


@gpu_only
def test_results_lie_at_round_addresses():
    """Kernels read 16 bytes at a time."""
    x = mg.tensor(np.arange(3.0), device="gpu")
    captured = mg.capture(lambda: (x > 1, x * 2, x.sum(), x < 1, x * 3))
    for _ in range(4):
        results = captured()
    assert [t.data.data.ptr % 256 for t in results] == [0] * 5
    assert results[4].numpy().tolist() == [0.0, 3.0, 6.0]


@gpu_only
def test_numbers_of_the_host_lie_at_round_addresses():
    addresses = []

    def step():
        forms = (((3,), "float32"), ((), "float64"), ((5,), "float32"), ((2, 3), "float64"))
        made = [mg.from_host(lambda s=s, t=t: np.full(s, 0.5, t), s, t, "gpu") for s, t in forms]
        addresses.extend(t.data.data.ptr % 256 for t in made)
        return [t * 2 for t in made]

    captured = mg.capture(step)
    for _ in range(4):
        results = captured()
    assert addresses == [0] * 12  # of the two calls before the capture, too
    assert all(np.array_equal(t.numpy(), np.ones(t.shape)) for t in results)


@gpu_only
def test_an_argument_may_lie_in_memory_in_any_order():
    captured = mg.capture(lambda x: x * 2)
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    for axes in ((0, 1, 2), (0, 1, 2), (0, 1, 2), (2, 0, 1), (0, 1, 2)):
        base = mg.tensor(np.ascontiguousarray(array.transpose(axes)), device="gpu")
        x = base.transpose(*np.argsort(axes).tolist())
        assert x.shape == (2, 3, 4)
        assert np.array_equal(captured(x).numpy(), array * 2)


@gpu_only
def test_arguments_by_name_are_told_apart_by_their_names():
    captured = mg.capture(lambda x, *, factor=1.0, more=0.0: x * factor + more)
    x = mg.tensor([3.0], device="gpu")
    assert [captured(x, factor=2.0).item() for _ in range(4)] == [6.0] * 4
    assert [captured(x, more=2.0).item() for _ in range(4)] == [5.0] * 4
    assert [captured(x, more=1.0, factor=2.0).item() for _ in range(4)] == [7.0] * 4
    assert [captured(x, factor=1.0, more=2.0).item() for _ in range(4)] == [5.0] * 4


@gpu_only
def test_a_result_without_tensors_is_that_of_the_capture():
    numbers = iter(range(10))
    captured = mg.capture(lambda x: (x * 2).shape and next(numbers))
    x = mg.tensor([1.0], device="gpu")
    assert [captured(x) for _ in range(5)] == [0, 1, 2, 2, 2]


@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=gpu_only)])
def test_without_graphs_every_call_runs_the_step(device):
    """On the CPU, beside a GPU that is in use and without one."""
    backend.get(device)
    expected, found, run = both(lambda run: run.do(5), device="cpu")
    assert found == expected
    assert run.calls == 5
    assert not run.step.is_captured


# ---- the host's part ----


@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=gpu_only)])
def test_actions_happen_in_every_step_and_in_order(device):
    seen = []

    def step(x):
        mg.each_time(lambda: seen.append("before"))
        y = x + mg.from_host(lambda: (seen.append("made"), np.float32(len(seen)))[1], (), device=device)
        mg.each_time(lambda: seen.append("after"))
        return y

    captured = mg.capture(step)
    x = mg.tensor([0.0], device=device)
    found = [captured(x).item() for _ in range(5)]
    assert seen == ["before", "made", "after"] * 5
    assert found == [2.0, 5.0, 8.0, 11.0, 14.0]


@gpu_only
def test_the_host_may_run_ahead_of_the_device():
    """More replays than there are buffers of inputs, and nothing is looked at in between."""
    numbers = iter(range(100))
    captured = mg.capture(lambda: mg.from_host(lambda: next(numbers), (), device="gpu") * 2)
    found = [captured() for _ in range(40)]
    assert [t.item() for t in found] == [2.0 * k for k in range(40)]


@gpu_only
def test_dropout_by_a_generator_of_its_own_and_by_a_fixed_place():
    def masks(captured):
        generator = mg.Generator(9, 2)
        key_and_counter = mg.Generator(4).next_counter()
        x = mg.tensor(np.ones((3, 7), np.float32), device="gpu")

        def step():
            fixed = F.Dropout(0.4, *key_and_counter)(x)
            return F.dropout(x, 0.4, generator=generator), fixed, F.dropout(x, 0.4, generator=generator)

        run = mg.capture(step) if captured else step
        return [[t.numpy().tobytes() for t in run()] for _ in range(5)], generator.state

    found, expected = masks(True), masks(False)
    assert found == expected
    first, fixed, second = zip(*found[0], strict=True)
    assert len({*first, *second}) == 10
    assert len(set(fixed)) == 1


@gpu_only
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_weights_of_running_averages_are_given_anew_in_each_replay(dtype):
    gpu = backend.get("gpu")

    def averaged(captured):
        kept = [gpu.asarray(np.ones(shape, dtype)) for shape in ((3, 4), (3, 8))]
        kept[1] = kept[1][:, ::2]  # which no kernel takes
        weights = iter([(1 / k, 0.3 * k) for k in range(1, 10)])

        def step(x):
            y = x * 2
            gpu.average_updates([(average, y.data) for average in kept], lambda: next(weights))
            return y

        run = mg.capture(step) if captured else step
        for k in range(6):
            run(mg.tensor(np.arange(12.0).reshape(3, 4) + k, dtype, device="gpu"))
        return [average.get().tobytes() for average in kept]

    assert averaged(True) == averaged(False)


DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=gpu_only)])


@DEVICES
def test_from_host_makes_a_tensor(device):
    made = mg.from_host(lambda: np.arange(6, dtype=np.float64).reshape(2, 3), (2, 3), "float64", device)
    assert (made.device, made.dtype, made.requires_grad) == (device, "float64", False)
    assert np.array_equal(made.numpy(), np.arange(6.0).reshape(2, 3))
    assert mg.from_host(lambda: [1, 2], [2], device=device).numpy().tolist() == [1.0, 2.0]


@DEVICES
@pytest.mark.parametrize(
    ("value", "said"),
    [(np.zeros(3, np.float32), r"got float32 of \(3,\)"), (np.zeros(2), r"got float64 of \(2,\)")],
)
def test_from_host_says_what_it_was_given(device, value, said):
    with pytest.raises(
        ValueError, match=rf"^from_host: expected numbers of shape \(2,\) and dtype float32.*{said}"
    ):
        mg.from_host(lambda: value, (2,), device=device)


@gpu_only
def test_so_does_a_replay():
    shapes = iter([2, 2, 2, 2, 3, 2])
    step = mg.capture(lambda: mg.from_host(lambda: np.ones(next(shapes), np.float32), (2,), device="gpu") * 2)
    for _ in range(4):
        assert step().numpy().tolist() == [2.0, 2.0]
    with pytest.raises(ValueError, match=r"^from_host: expected numbers of shape \(2,\)"):
        step()
    assert step().numpy().tolist() == [2.0, 2.0]


# ---- what can't be captured ----


def looks_at_a_value(run, x, loss):
    return loss.item()


def looks_at_a_truth(run, x, loss):
    return "high" if loss > 1 else "low"


def copies_to_the_host(run, x, loss):
    return x.to("cpu")


def makes_a_tensor(run, x, loss):
    return x + mg.tensor([1.0], device="gpu")


def selects_by_a_list(run, x, loss):
    return x[[0, 2]]


def selects_by_a_mask(run, x, loss):
    return x[x > 0]


def makes_a_label(run, x, loss):
    return F.cross_entropy(x.reshape(len(x), -1), [0] * len(x))


def reads_another_tensor(run, x, loss):
    before = vars(run).get("before")
    run.before = x.detach() * 1.0  # hands it to the next call
    return run.before if before is None else before + 1.0


def changes_an_argument(run, x, loss):
    with mg.no_grad():
        x *= 2.0


def sets_the_rate(run, x, loss):
    run.optimizer.lr = 0.5


def sets_a_seed(run, x, loss):
    mg.manual_seed(3)


def makes_a_generator(run, x, loss):
    return F.dropout(x, 0.5, generator=mg.Generator(1))


def leaves_another_attribute(run, x, loss):
    run.network[3].p = run.network[3].p + 0.0


def gives_other_memory(run, x, loss):
    weight = run.network[0].weight
    weight.data = weight.data * 1.0


def returns_a_graph(run, x, loss):
    return loss


REFUSED = {
    "item": (looks_at_a_value, r"Tensor\.item: there are no numbers yet"),
    "if": (looks_at_a_truth, r"Tensor\.__bool__: there are no numbers yet"),
    "to": (copies_to_the_host, r"to_device: there are no numbers yet"),
    "tensor": (makes_a_tensor, r"tensor: numbers of the host .*minigrad\.from_host"),
    "a list": (selects_by_a_list, r"get_item: numbers of the host"),
    "a mask": (selects_by_a_mask, r"get_item: it waits for the device"),
    "a label": (makes_a_label, r"cross_entropy: numbers of the host"),
    "a tensor of the call before": (reads_another_tensor, r"add: the step reads a tensor .* another in each"),
    "an argument in place": (changes_an_argument, r"the step changes its argument of shape \(4, 2, 6, 6\)"),
    "a rate": (sets_the_rate, r"Adam\.__setattr__: Adam\.lr is set once in the capture"),
    "a seed": (sets_a_seed, r"a random generator is made, or its state set"),
    "a generator": (makes_a_generator, r"a random generator is made, or its state set"),
    "an attribute": (leaves_another_attribute, r"a module another attribute or mode"),
    "data": (gives_other_memory, r"gives a parameter, .* other memory.*change tensors in place"),
}


@gpu_only
@pytest.mark.parametrize(("mistake", "said"), REFUSED.values(), ids=REFUSED)
def test_what_can_t_be_captured_is_named_and_nothing_has_happened(mistake, said):
    """The third call raises; the two before, and training by the step itself, are as if it had not been."""

    class Mistaken(Run):
        def plain(self, x, labels):
            loss, others = super().plain(x, labels)
            mistake(self, x, loss)
            return loss, others

    run, expected = Mistaken(True), Mistaken(False)
    mg.manual_seed(3)
    run.do(2)
    with pytest.raises(mg.CaptureError, match=f"^capture: .*{said}"):
        run.do()
    run.step = run.plain
    run.do(2)
    left = run.left()
    mg.manual_seed(3)
    expected.do(4)
    assert left == expected.left()


@gpu_only
def test_gradients_are_as_before_where_a_capture_fails():
    class Mistaken(Run):
        def plain(self, x, labels):
            loss, others = super().plain(x, labels)
            loss.item()
            return loss, others

    run = Mistaken(True)
    run.do(2)
    before = [p.grad for p in run.network.parameters()]
    values = [grad.numpy().tobytes() for grad in before]
    with pytest.raises(mg.CaptureError):
        run.do()
    assert all(p.grad is grad for p, grad in zip(run.network.parameters(), before, strict=True))
    assert [grad.numpy().tobytes() for grad in before] == values


@gpu_only
def test_tensors_that_require_a_gradient_do_not_go_in_or_out():
    x = mg.tensor([1.0, 2.0], device="gpu", requires_grad=True)
    out = mg.capture(lambda: x * 2)
    assert [out().detach().numpy().tolist() for _ in range(2)] == [[2.0, 4.0]] * 2
    with pytest.raises(mg.CaptureError, match=r"^capture: expected no result that requires a gradient"):
        out()
    into = mg.capture(lambda t: t.detach() * 2)
    assert [into(x).numpy().tolist() for _ in range(2)] == [[2.0, 4.0]] * 2
    with pytest.raises(mg.CaptureError, match=r"^capture: expected no argument that requires a gradient"):
        into(x)


@gpu_only
@pytest.mark.parametrize(
    "value", [[1], np.ones(2), (mg.tensor([1.0]),)], ids=["a list", "an array", "a tuple"]
)
def test_arguments_that_are_no_keys_are_told(value):
    backend.get("gpu")
    with pytest.raises(TypeError, match=r"^capture: expected tensors and hashable values as arguments, got "):
        mg.capture(lambda value: None)(value)


@gpu_only
def test_a_step_on_two_devices_is_told():
    x, y = mg.tensor([1.0], device="gpu"), mg.tensor([1.0], device="cpu")
    step = mg.capture(lambda: (x * 2, y.exp()))
    step(), step()
    with pytest.raises(mg.CaptureError, match=r"^capture: exp runs on 'cpu', which has no graphs"):
        step()


@gpu_only
def test_gradients_that_are_added_up_over_steps_are_told():
    run = Run(True)
    run.optimizer.zero_grad = lambda: None
    run.do(2)
    with pytest.raises(mg.CaptureError, match=r"^capture: the step reads gradients of the step before"):
        run.do()


class Mistake(Exception):
    pass


@gpu_only
@pytest.mark.parametrize(
    ("fails", "error", "said"),
    [
        (lambda: mg.tensor([1.0]) @ mg.tensor([[1.0, 2.0], [1.0, 2.0]]), ValueError, None),
        (lambda: (_ for _ in ()).throw(Mistake("mine")), Mistake, "^mine$"),
        (lambda: backend.get("gpu").xp.empty(2**50), MemoryError, None),
        (lambda: (_ for _ in ()).throw(KeyboardInterrupt()), KeyboardInterrupt, None),
    ],
    ids=["a wrong shape", "an error of the step's", "too little memory", "Ctrl-C"],
)
@pytest.mark.parametrize("call", [1, 2, 3, 5])
def test_errors_are_those_of_the_step(fails, error, said, call):
    """In each call: uncaptured, in the capture, and (call 5) in a capture that takes another's place."""

    class Failing(Run):
        failing = False

        def plain(self, x, labels):
            if self.failing:
                fails()
            return super().plain(x, labels)

    def train(run):
        mg.manual_seed(3)
        run.do(call - 1)
        if call == 5:
            run.do(2, count=3)
        run.failing = True
        with pytest.raises(error, match=said):
            run.do(1, count=3 if call == 5 else 4)
        run.failing = False
        run.do(5)
        return run.left()

    assert train(Failing(True)) == train(Failing(False))


@gpu_only
def test_the_message_of_a_wrong_shape_is_the_operation_s():
    shapes = iter([(2, 2), (2, 2), (3, 3)])
    x = mg.tensor(np.ones((2, 2), np.float32), device="gpu")
    others = {s: mg.tensor(np.ones(s, np.float32), device="gpu") for s in ((2, 2), (3, 3))}
    step = mg.capture(lambda: x @ others[next(shapes)])
    step(), step()
    with pytest.raises(ValueError, match="matmul"):
        step()


@gpu_only
def test_a_capture_gives_its_memory_back():
    """The old capture's memory is free when the new one is there, and all of it with the step.

    The first time, the driver takes memory for the kernels, too, and keeps it. Of two more times one may have
    another process take some: memory that is not given back is missing each time.
    """
    import cupy

    def free():
        return cupy.cuda.runtime.memGetInfo()[0]

    x = mg.tensor(np.ones((1024, 4096), np.float32), device="gpu")
    missing = []
    for _ in range(3):
        before = free()
        step = mg.capture(lambda k: ((x * 2) * 3) * k)
        for k in (1, 1, 1, 2, 2, 2):
            assert step(k).data[0, 0] == 6 * k
        assert step.is_captured
        del step
        cupy.get_default_memory_pool().free_all_blocks()
        missing.append(before - free())
    assert min(missing[1:]) < x.data.nbytes / 2


@gpu_only
@pytest.mark.parametrize("change", ["a hook", "a mode"])
def test_a_call_without_some_modules_does_not_hide_their_changes(change):
    """The last call that ran the step knows nothing of the module that a replay needs."""
    called = []

    def train(run):
        whole = run.plain

        def sometimes(x, labels, skip=False):
            return (x.mean(), {"mean": x.mean(axis=0)}) if skip else whole(x, labels)

        run.step = mg.capture(sometimes) if run.step is not run.plain else sometimes
        run.do(4)
        run.do(1, skip=True)
        if change == "a hook":
            run.network[0].register_forward_hook(lambda *_: called.append(run.calls))
        else:
            run.network[1].eval()
        run.do(2)

    expected, found, run = both(train)
    assert found == expected
    assert run.calls == 5
    assert len(called) == (4 if change == "a hook" else 0)


# ---- what a replay must leave alone, and must see ----


@gpu_only
def test_a_step_leaves_gradients_alone_that_it_does_not_make():
    """A captured evaluation between backward and the optimizer's step, and a new capture of the training."""

    def weights(captured):
        mg.manual_seed(0)
        network = nn.Sequential(nn.Dense(3, 4), nn.Dense(4, 1)).to("gpu")
        optimizer = optim.SGD(network.parameters(), 0.1)

        def back(x):
            optimizer.zero_grad()
            (network(x) ** 2).mean().backward()

        def value(x):
            with mg.no_grad():
                return network(x).mean()

        if captured:
            back, value = mg.capture(back), mg.capture(value)
        for count in (4, 4, 4, 4, 5, 5, 5, 5, 5):
            x = mg.tensor(np.random.default_rng(count).normal(size=(count, 3)), "float32", "gpu")
            back(x)
            value(x[:3])
            optimizer.step()
        return [p.numpy().tobytes() for p in network.parameters()]

    assert weights(True) == weights(False)


@gpu_only
@pytest.mark.parametrize("change", ["data", "optimizer", "attribute", "module"])
@pytest.mark.parametrize("after", [1, 2, 3, 4])
def test_a_change_between_any_two_calls_is_seen(change, after):
    def train(run):
        run.do(after)
        if change == "data":
            assign_data(run)
        elif change == "optimizer":
            load_optimizer(run)
        elif change == "attribute":
            run.network[6].p = 0.25
        else:
            mg.manual_seed(8)
            new = nn.Dense(144, 3).to("gpu").to(run.dtype)
            setattr(run.network, "8", new)
            run.optimizer = optim.Adam(run.network.parameters(), 1e-2)
        run.do(5)

    expected, found, run = both(train)
    assert found == expected
    assert run.step.is_captured


@gpu_only
def test_gradients_that_are_there_before_are_added_to():
    """The step was captured without: cleared by the caller each time, and then no more."""

    def sums(captured):
        x = mg.tensor([1.0, 2.0], device="gpu")
        w = mg.tensor([3.0, 4.0], device="gpu", requires_grad=True)

        def back():
            (w * x).sum().backward()

        step, found = mg.capture(back) if captured else back, []
        for k in range(8):
            if k < 5:
                w.grad = None
            step()
            found.append(w.grad.numpy().tolist())
        return found

    assert sums(True) == sums(False)


@gpu_only
def test_modules_that_the_step_only_writes_to_are_named():
    """Running averages: their memory is that of the capture, unless it is said to be looked at."""
    w, average = nn.Dense(2, 2).to("gpu"), nn.Dense(2, 2).to("gpu")
    gpu = backend.get("gpu")

    def step():
        pairs = [(a.data, p.data) for a, p in zip(average.parameters(), w.parameters(), strict=True)]
        gpu.average_updates(pairs, lambda: (0.5, 0.5))
        return w(x).sum().detach()

    x = mg.tensor(np.ones((1, 2), np.float32), device="gpu")
    captured = mg.capture(step, modules=[average])
    expected = average.weight.numpy().copy()
    for k in range(8):
        if k == 4:
            average.weight.data = average.weight.data * 3.0
            expected = expected * np.float32(3)
        captured()
        expected = np.float32(0.5) * expected + np.float32(0.5) * w.weight.numpy()
    assert np.array_equal(average.weight.numpy(), expected)


@gpu_only
def test_a_rule_of_a_user_s_own_says_what_it_reads_anew():
    class Fading(optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, 0.1, 0.0)

        def _update(self, index, p, gradient):
            p.data[...] -= self.lr / self.steps[index] * gradient

    class Steady(Fading):
        replayed = ()

        def _update(self, index, p, gradient):
            p.data[...] -= self.lr * gradient

    for kind in (Fading, Steady):
        w = mg.tensor([1.0, 2.0], device="gpu", requires_grad=True)
        optimizer = kind([w])

        def step(w=w, optimizer=optimizer):
            optimizer.zero_grad()
            (w * w).sum().backward()
            optimizer.step()

        captured = mg.capture(step)
        captured(), captured()
        if kind is Fading:
            with pytest.raises(mg.CaptureError, match=r"^capture: Fading: its rule may read `steps`"):
                captured()
            continue
        captured(), captured()
        assert np.allclose(w.numpy(), np.array([1.0, 2.0]) * 0.8**4)


@gpu_only
def test_an_optimizer_s_step_before_the_backward_pass_is_told():
    x = mg.tensor([1.0, 2.0], device="gpu", requires_grad=True)
    optimizer = optim.SGD([x], 0.1)

    def step():
        optimizer.step()
        optimizer.zero_grad()
        (x * x).sum().backward()

    captured = mg.capture(step)
    captured(), captured()
    with pytest.raises(mg.CaptureError, match=r"^capture: the step reads gradients of the step before"):
        captured()


@gpu_only
def test_images_from_the_host_lie_in_memory_as_in_an_uncaptured_step():
    values = np.random.default_rng(0).normal(size=(3, 5, 6, 7))
    captured = mg.capture(lambda: mg.from_host(lambda: values, values.shape, "float64", "gpu").sum())
    assert len({captured().item() for _ in range(5)}) == 1


@gpu_only
def test_equal_arguments_of_other_types_are_others():
    x = mg.tensor([1.0], device="gpu")
    captured = mg.capture(lambda pair: x + (10.0 if pair[0] is True else 20.0))
    assert [captured((1, 2)).item() for _ in range(4)] == [21.0] * 4
    assert captured((True, 2)).item() == 11.0


@gpu_only
def test_a_result_on_the_cpu_is_told():
    x = mg.tensor([1.0], device="gpu")
    captured = mg.capture(lambda: (x * 2, mg.tensor([1.0], device="cpu")))
    captured(), captured()
    with pytest.raises(mg.CaptureError, match=r"^capture: expected results on the device of the graph"):
        captured()


@gpu_only
def test_other_threads_have_no_part_in_a_capture(at_once):
    """One trains captured; the other runs on the CPU meanwhile."""

    def work(index):
        if index:
            x = mg.tensor(np.ones((4, 4), np.float32), device="cpu")
            for _ in range(200):
                x = (x @ x) * 0.25
            return None
        run = Run(True)
        run.do(6)
        return run.step.is_captured

    assert work(0)
    at_once(work, 2)
