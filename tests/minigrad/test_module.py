"""What a module is given and asked for: tied and frozen weights, assignments, and wrong arguments."""

import copy
import re

import numpy as np
import pytest

import minigrad as mg
import minigrad.functional as F
from minigrad import backend, inspect, nn, optim

EVERY_DEVICE = True


@pytest.fixture(autouse=True)
def _seeded():
    mg.manual_seed(0)


def array(values, dtype="float32"):
    """Values as an array of the default device."""
    return backend.get().asarray(values, dtype)


def tied():
    """Two layers of one weight, a norm in two places, and a buffer under two names."""
    model = nn.Sequential(nn.Dense(2, 2), nn.Dense(2, 2), nn.BatchNorm(2))
    model[1].weight = model[0].weight
    model.norm = model[2]
    model[2].mean = model[2].running_mean
    return model


# -- tied weights --------------------------------------------------------------------------------------


def moved(model):
    return model.to("float64")


def moved_to_the_device(model):
    return model.to("cpu").to(backend.get().device)


def copied(model):
    return copy.deepcopy(model)


def loaded(model):
    model.load_state_dict(model.state_dict())
    return model


@pytest.mark.parametrize("change", [moved, moved_to_the_device, copied, loaded, lambda m: m])
def test_what_is_tied_stays_so_and_is_counted_once(change):
    model = change(tied())
    assert model[0].weight is model[1].weight
    assert model.norm is model[2]
    assert model[2].mean is model[2].running_mean
    assert [name for name, _ in model.named_parameters()] == [
        "0.weight", "0.bias", "1.bias", "2.weight", "2.bias",
    ]  # fmt: skip
    assert sum(p.size for p in model.parameters()) == 4 + 2 + 2 + 2 + 2
    assert [name for name, _ in model.named_buffers()] == ["2.running_mean", "2.running_var"]
    assert [name for name, _ in model.named_modules()] == ["", "0", "1", "2"]


def test_tied_weights_learn_as_one_after_a_move():
    model = nn.Sequential(nn.Dense(1, 1, bias=False), nn.Dense(1, 1, bias=False))
    model[1].weight = model[0].weight
    model.to("float64")
    model[0].weight.data[...] = 3.0
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    y = model(mg.tensor([[2.0]], "float64"))
    assert y.item() == 18.0  # w^2 x
    y.sum().backward()
    assert model[0].weight.grad.item() == 12.0  # 2 w x
    optimizer.step()
    assert model[1].weight.item() == pytest.approx(3.0 - 0.1 * 12.0)


def test_a_state_has_every_name_of_what_is_tied():
    model = tied()
    names = ["0.weight", "0.bias", "1.weight", "1.bias"]
    norm = ["weight", "bias", "running_mean", "running_var", "mean"]
    assert list(model.state_dict()) == [*names, *(f"{at}.{n}" for at in ("2", "norm") for n in norm)]
    state = {name: t.numpy() + 1 for name, t in model.state_dict().items()}
    model.load_state_dict(state)
    for name, t in model.state_dict().items():
        assert t.numpy().tolist() == state[name].tolist()


@pytest.mark.parametrize(
    ("name", "first"),
    [("1.weight", "0.weight"), ("2.mean", "2.running_mean"), ("norm.bias", "2.bias"),
     ("norm.running_var", "2.running_var")],
)  # fmt: skip
def test_two_values_for_one_tensor_are_refused_and_nothing_changes(name, first):
    model = tied()
    before = {n: t.numpy().tolist() for n, t in model.state_dict().items()}
    state = {n: t.numpy() + 1 for n, t in model.state_dict().items()}
    state[name] = state[name] + 1
    message = rf"{name}: it is the same tensor as {first}, which is given other values"
    with pytest.raises(ValueError, match=message):
        model.load_state_dict(state)
    assert {n: t.numpy().tolist() for n, t in model.state_dict().items()} == before
    nowhere = {n: t.numpy() * np.float32("nan") for n, t in model.state_dict().items()}
    model.load_state_dict(nowhere)  # no number is the same value under both names


def test_a_module_in_two_places_is_visited_once_and_hooked_at_both():
    layer = nn.Dense(2, 2)
    model, seen = nn.Sequential(layer, nn.Tanh(), layer), []
    layer.register_forward_hook(lambda module, inputs, output: seen.append("forward"))
    layer.register_backward_hook(lambda module, gradient: seen.append("backward"))
    model(mg.tensor(np.ones((1, 2)), "float32")).sum().backward()
    assert seen == ["forward", "forward", "backward", "backward"]
    assert [m for _, m in model.named_modules()] == [model, layer, model[1]]
    assert [name for name, _ in model.children()] == ["0", "1", "2"]
    assert not model.eval()[2].training
    assert inspect.summary(model, (2,)).parameters == 6


# -- frozen parameters ---------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [moved, moved_to_the_device, copied, loaded])
def test_a_frozen_parameter_stays_frozen(change):
    model = nn.Sequential(nn.Dense(2, 2), nn.Dense(2, 1))
    model[0].weight.requires_grad = False
    model[1].bias = nn.Parameter(array([5.0]), requires_grad=False)
    model = change(model)
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, False]
    assert all(isinstance(p, nn.Parameter) for p in model.parameters())
    model(mg.tensor(np.ones((3, 2)), model[0].weight.dtype)).sum().backward()
    assert [p.grad is None for p in model.parameters()] == [True, False, False, True]
    model[0].weight.requires_grad = True
    assert all(p.requires_grad for p in list(model.parameters())[:3])


def test_a_buffer_that_requires_a_gradient_does_so_after_a_move():
    model = nn.Dense(1, 1)
    model.scale = mg.tensor([2.0], requires_grad=True)
    model.to("float64")
    assert model.scale.requires_grad
    assert not isinstance(model.scale, nn.Parameter)


def test_gradients_move_with_their_parameters():
    model = nn.Dense(2, 1)
    model(mg.tensor([[2.0, 3.0]])).sum().backward()
    for place, dtype in (("float64", "float64"), ("cpu", "float64"), ("float32", "float32")):
        model.to(place)
        assert model.weight.grad.numpy().tolist() == [[2.0, 3.0]]
        assert model.weight.grad.dtype == dtype
    assert model.weight.grad.device == "cpu"


# -- assignments ---------------------------------------------------------------------------------------

OTHERS = {
    "Tensor": lambda p: p * 0.5,
    "ndarray": lambda p: p.numpy(),
    "float": lambda p: 1.0,
    "Dense": lambda p: nn.Dense(1, 1),
    "list": lambda p: [1.0],
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_parameter_is_not_lost_by_an_assignment(kind, name):
    layer = nn.Dense(2, 1)
    before = getattr(layer, name)
    message = (
        rf"Dense\.{name} is a parameter: expected a Parameter or None, got {kind}, which would not be "
        rf"learned; assign minigrad\.nn\.Parameter\(array\), .*{name}\.data = array.*no_grad"
    )
    with pytest.raises(TypeError, match=message):
        setattr(layer, name, OTHERS[kind](before))
    assert getattr(layer, name) is before


def test_a_step_that_records_a_graph_is_refused_in_place_of_the_weight():
    layer = nn.Dense(1, 1)
    layer(mg.tensor([[1.0]])).sum().backward()
    before = layer.weight
    with pytest.raises(TypeError, match=r"change it in place \(`-=`\) under minigrad\.no_grad\(\)"):
        layer.weight = layer.weight - 0.1 * layer.weight.grad
    assert layer.weight is before


def test_a_parameter_may_be_replaced_by_another_or_by_none():
    layer = nn.Dense(2, 1)
    new = nn.Parameter(array([[3.0, 4.0]]))
    layer.weight, layer.bias = new, None
    assert list(layer.parameters()) == [new]
    assert layer(mg.tensor([[1.0, 2.0]])).item() == 11.0
    layer.bias = nn.Parameter(array([1.0]))
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    layer.weight.data = array([[0.0, 1.0]])
    assert layer(mg.tensor([[1.0, 2.0]])).item() == 3.0
    del layer.weight
    layer.weight = mg.tensor([[1.0, 1.0]])  # said in so many words
    assert [name for name, _ in layer.named_buffers()] == ["weight"]


def test_a_module_is_not_lost_by_an_assignment():
    model = nn.Sequential(nn.Dense(2, 1))
    before = model[0]
    for other in (abs, 1.0, mg.tensor([1.0]), [before]):
        with pytest.raises(
            TypeError, match=r"Sequential\.0 is a module: expected a Module or None, got .*`del`"
        ):
            setattr(model, "0", other)
    assert model[0] is before
    model.head = before
    model.head = new = nn.Dense(1, 1)
    assert dict(model.children()) == {"0": before, "head": new}
    model.head = None
    model.head = "anything may be where no module was"
    del model.__dict__["0"]
    setattr(model, "0", abs)
    assert list(model.parameters()) == []


def test_a_buffer_may_be_replaced_by_a_tensor_and_by_nothing_that_is_not_kept():
    layer = nn.BatchNorm(2)
    layer.running_mean = mg.tensor([1.0, 2.0])
    assert layer.state_dict()["running_mean"].numpy().tolist() == [1.0, 2.0]
    for wrong in (np.zeros(2, np.float32), 0.0, [0.0, 0.0]):
        with pytest.raises(
            TypeError, match=r"BatchNorm\.running_mean is a buffer: expected a Tensor or None"
        ):
            layer.running_mean = wrong
    assert layer.state_dict()["running_mean"].numpy().tolist() == [1.0, 2.0]
    layer.running_mean = layer.running_var = None
    assert [name for name, _ in layer.named_buffers()] == []
    layer.note = 1.0
    layer.note = "anything may be where no tensor was"


# -- what is wrong, and what to do ---------------------------------------------------------------------


class Unstarted(nn.Module):
    def __init__(self, **attributes):
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x):
        return x


def test_a_module_that_does_not_start_its_base_class_says_so():
    message = r"Unstarted: its __init__ must call super\(\).__init__\(\) first"
    for value in (nn.Dense(1, 1), nn.Parameter(array([1.0])), mg.tensor([1.0])):
        with pytest.raises(AttributeError, match=message):
            Unstarted(layer=value)
    made = Unstarted(number=3)  # which no module needs to know of
    uses = [
        lambda: made(mg.tensor([1.0])), lambda: made.training, lambda: nn.Sequential(made)(mg.tensor([1.0])),
        lambda: made.register_forward_hook(print), lambda: made.register_backward_hook(print),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(AttributeError, match=message):
            use()
    with pytest.raises(AttributeError, match="'Dense' object has no attribute 'wieght'"):
        _ = nn.Dense(1, 1).wieght


def test_a_module_inside_of_itself_is_refused_and_a_reference_is_not():
    model = nn.Sequential(nn.Sequential(nn.Dense(1, 1)))
    for inner, outer in ((model, model), (model[0], model), (model[0][0], model)):
        with pytest.raises(ValueError, match=r"\.above: a module can't contain itself"):
            inner.above = outer
    model[0].above = [model]
    assert list(model.state_dict()) == ["0.0.weight", "0.0.bias"]
    model.again = model[0][0]  # in two places, but not in itself
    assert [name for name, _ in model.named_modules()] == ["", "0", "0.0"]


@pytest.mark.parametrize("target", ["float16", "int64", "cuda", "tpu", "", None, 64, int, ["cpu"]])
def test_a_move_to_what_is_no_place_names_those_there_are_and_moves_nothing(target):
    model = nn.Sequential(nn.Dense(1, 1), nn.BatchNorm(1))
    before = [id(t) for t in (*model.parameters(), model[1].running_mean)]
    with pytest.raises(ValueError) as caught:
        model.to(target)
    places = ", ".join(map(repr, backend.known()))
    assert str(caught.value) == (
        f"to(Sequential): expected a device ({places}) or a dtype ('float32', 'float64'), got {target!r}"
    )
    assert [id(t) for t in (*model.parameters(), model[1].running_mean)] == before


def test_a_dtype_may_be_numpys():
    model = nn.Dense(1, 1)
    assert model.to(np.float64).weight.dtype == "float64"
    assert model.to(np.dtype("float32")).weight.dtype == "float32"


def test_a_move_that_fails_in_the_middle_moves_nothing():
    class Full(type(backend.get("cpu"))):
        device = "full"

        def asarray(self, data, dtype=None):
            raise MemoryError("no memory left") if np.size(data) > 1 else ValueError

    model = nn.Sequential(nn.Dense(2, 1), nn.Dense(1, 1))
    model[0].bias.data[...] = 0.0
    before = list(model.parameters())
    engine = Full()
    backend.register("full", lambda: engine)
    try:
        with pytest.raises(MemoryError):
            model.to("full")
    finally:
        backend._factories.pop("full"), backend._backends.pop("full", None)
    assert all(p is q for p, q in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("model.safetensors", r"got the path 'model\.safetensors': pass minigrad\.load\(path\)"),
        (nn.ReLU, r"got ReLU: pass its \.state_dict\(\)"),
        (lambda: [1, 2], "expected tensors by name, got list"),
        (lambda: None, "expected tensors by name, got NoneType"),
    ],
    ids=["path", "module", "list", "None"],
)
def test_what_is_no_state_is_told(state, message):
    given = state() if callable(state) else state
    with pytest.raises(TypeError, match=rf"load_state_dict\(Dense\): .*{message}"):
        nn.Dense(1, 1).load_state_dict(given)


def test_a_state_of_other_things_than_arrays_names_them():
    layer = nn.Dense(1, 1)
    with pytest.raises(ValueError, match=r"bias: expected a tensor or an array, got float; missing: weight"):
        layer.load_state_dict({"bias": 1.0})
    with pytest.raises(ValueError, match=r"unexpected: 3"):
        layer.load_state_dict({**layer.state_dict(), 3: layer.bias})


def test_a_sequential_says_how_modules_are_given():
    modules = [nn.Dense(1, 1), nn.ReLU()]
    for given, message in (
        ([modules], r"got list \(pass the modules one by one: Sequential\(\*modules\)\) at 0"),
        ([modules[0], nn.ReLU], r"got the class ReLU \(pass an instance, ReLU\(\.\.\.\)\) at 1"),
        (list(modules[0].parameters()), r"got Parameter at 0"),
        ([F.relu], r"got function at 0"),
    ):
        with pytest.raises(TypeError, match=f"Sequential: expected modules, {message}"):
            nn.Sequential(*given)


def test_a_part_of_a_sequential_is_one_of_the_same_modules():
    model = nn.Sequential(nn.Dense(3, 3), nn.Tanh(), nn.Dense(3, 2))
    part = model[1:]
    assert type(part) is nn.Sequential
    assert list(part) == list(model)[1:]
    assert list(part.state_dict()) == ["1.weight", "1.bias"]
    x = mg.tensor(np.ones((1, 3)), "float32")
    assert part(model[0](x)).numpy().tolist() == model(x).numpy().tolist()
    assert len(model[5:]) == 0


def test_a_parameter_is_made_of_arrays_tensors_and_numbers():
    x = mg.tensor([1.0, 2.0])
    shared = nn.Parameter(x)
    assert shared.data is x.data
    assert shared.requires_grad
    y = (shared * shared).sum()
    x.data[...] = 5.0
    x.mark_changed()  # of the memory, whichever tensor it is in
    with pytest.raises(RuntimeError, match="changed"):
        y.backward()
    assert nn.Parameter((x * 2.0).detach()).node is None
    assert nn.Parameter(nn.Parameter(array([1.0])) * 2.0).node is None  # cut off from the graph
    numbers = nn.Parameter([1, 2.5])
    assert (numbers.numpy().tolist(), str(numbers.dtype)) == ([1.0, 2.5], "float32")
    assert nn.Parameter(3.0).shape == ()
    assert numbers.device == backend.get().device
    for wrong in (None, "text", nn.Dense(1, 1)):
        with pytest.raises(TypeError, match="expected numbers"):
            nn.Parameter(wrong)


@pytest.mark.parametrize(
    "layer",
    [nn.ReLU(), nn.LeakyReLU(), nn.Tanh(), nn.Sigmoid(), nn.Dropout(), nn.Dropout().eval(), nn.Flatten(),
     nn.Reshape(2)],
    ids=repr,
)  # fmt: skip
def test_a_layer_without_parameters_names_itself_for_what_is_no_tensor(layer):
    for wrong in (array([[1.0, 2.0]]), [[1.0, 2.0]], 1.0, None):
        expected = f"{layer!r}: expected a Tensor, got {type(wrong).__name__}: minigrad.tensor(...) makes one"
        with pytest.raises(TypeError, match=re.escape(expected)):
            layer(wrong)


@pytest.mark.parametrize(
    "name", ["constant_", "normal_", "uniform_", "glorot_uniform_", "he_normal_", "he_uniform_"]
)
def test_an_initialiser_names_what_it_can_not_fill_and_fills_nothing(name):
    layer = nn.Dense(3, 3)
    before, calls = layer.weight.numpy().tolist(), mg.random.get_state()["calls"]
    fill, value = getattr(nn.init, name), () if name != "constant_" else (1.0,)
    for wrong in (layer, layer.weight.data, list(layer.parameters()), None):
        message = rf"{name}: expected a Tensor, such as a layer's \.weight, got {type(wrong).__name__}"
        with pytest.raises(TypeError, match=message):
            fill(wrong, *value)
    if name != "glorot_uniform_":
        for wrong in (None, "1", [1.0]):
            with pytest.raises(
                TypeError, match=rf"{name}: expected a number as \w+, got {re.escape(repr(wrong))}"
            ):
                fill(layer.weight, wrong)
    if name != "constant_":
        with pytest.raises(
            TypeError, match=rf"{name}: expected a minigrad\.Generator or None as generator, got int"
        ):
            fill(layer.weight, generator=3)
    assert layer.weight.numpy().tolist() == before
    assert mg.random.get_state()["calls"] == calls


def test_parameters_in_place_of_a_network_are_told():
    layer = nn.Dense(1, 1)
    parameters, x = list(layer.parameters()), mg.tensor([[1.0]])
    for watch in (inspect.detect_anomaly, inspect.profile):
        for wrong in (parameters, {"g": parameters}, []):
            with pytest.raises(
                TypeError, match="expected a layer or a network .* pass the module itself, not its"
            ):
                watch(wrong)
        watch({"g": layer})
    for a, b in ((parameters, layer), (layer, parameters), (parameters, "cpu")):
        with pytest.raises(TypeError, match="compare: expected two layers or networks .*got list"):
            inspect.compare(a, b, x)


@pytest.mark.parametrize(
    ("make", "shape"),
    [(lambda: nn.Conv2d(2, 3, 1), (4, 2, 1, 1)), (lambda: nn.ConvTranspose2d(2, 3, 1), (4, 2, 1, 1)),
     (lambda: nn.BatchNorm(2), (4, 2))],
)  # fmt: skip
def test_a_second_input_is_no_slope(make, shape):
    layer, x = make(), mg.tensor(np.ones(shape), "float32")
    message = re.escape(f"{layer.describe()}: expected one input, got a second Tensor, of {shape}")
    with pytest.raises(TypeError, match=message):
        layer(x, x)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        layer()


def test_what_is_no_hook_and_what_has_no_gradient_is_told():
    layer = nn.Dense(1, 1)
    for register in (layer.register_forward_hook, layer.register_backward_hook):
        with pytest.raises(TypeError, match="a hook: expected a function, got list"):
            register([print])
    assert layer.forward_hooks == layer.backward_hooks == []

    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    pair, x = Pair(), mg.tensor([1.0], requires_grad=True)
    assert pair(x) == (x, x)
    pair.register_backward_hook(lambda *_: None)
    with pytest.raises(
        TypeError, match=r"Pair\(\): a backward hook needs a forward that returns a Tensor, got t"
    ):
        pair(x)


def test_a_weight_that_a_step_changes_in_place_stays_a_parameter():
    layer = nn.Dense(1, 1)
    layer.weight.data[...], layer.bias.data[...] = 3.0, 1.0
    layer(mg.tensor([[2.0]])).sum().backward()
    weight, array_before = layer.weight, layer.weight.data
    with mg.no_grad():
        layer.weight -= 0.5 * layer.weight.grad
        layer.bias += layer.bias.grad
        layer.bias *= 2.0
    assert layer.weight is weight
    assert weight.data is array_before
    assert (weight.item(), layer.bias.item()) == (3.0 - 0.5 * 2.0, (1.0 + 1.0) * 2.0)
    assert list(layer.parameters()) == [weight, layer.bias]
    with pytest.raises((RuntimeError, TypeError), match=r"no_grad\(\)"):
        layer.weight -= 0.5 * layer.weight.grad
    assert layer.weight is weight
    assert weight.item() == 2.0
    norm = nn.BatchNorm(1)
    norm.running_mean += 1.0  # a buffer
    assert norm.state_dict()["running_mean"].item() == 1.0
