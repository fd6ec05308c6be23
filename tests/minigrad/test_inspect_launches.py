"""`launches`: bytes and operations by hand, layers and phases, and nothing where no GPU works."""

import numpy as np
import pytest

import minigrad as mg
import minigrad.functional as F
from minigrad import backend, nn, observer, optim
from minigrad.backend import launches as heard
from minigrad.backend.gpu.kernels import load
from minigrad.inspect import Shadow, launches

N = 3  # images
gpu = pytest.mark.gpu


def network():
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, 1, 1), nn.LeakyReLU(0.2), nn.BatchNorm(8), nn.Flatten(), nn.Dense(8 * 25, 2)
    )


def images(device):
    return mg.tensor(np.random.default_rng(0).standard_normal((N, 4, 5, 5)), "float32", device)


def listed(work, model=None):
    with launches(model) as found:
        work()
    return found.launches


def only(found, start):
    """The launch whose kernel begins so; there must be one."""
    (launch,) = [each for each in found if each.kernel.startswith(start)]
    return launch


def test_on_the_cpu_nothing_is_listed():
    model = network()
    assert listed(lambda: model(images("cpu")).sum().backward(), model) == []
    assert heard.listeners == []


def test_every_kernel_has_its_operations():
    kernels = {kernel for kernels in load.SOURCES.values() for kernel in kernels}
    assert load.FLOP.keys() == kernels
    assert kernels >= load.IN_PLACE.keys() | load.READS_FEW.keys()


# -- bytes and operations by hand ---------------------------------------------------------------------


@gpu
def test_a_convolution():
    x, weight, bias = (
        mg.tensor(np.ones(shape), "float32", "gpu") for shape in ((N, 4, 5, 5), (8, 4, 3, 3), (8,))
    )
    found = listed(lambda: F.conv2d(x, weight, bias, padding=1))
    positions, row = N * 25, 9 * 4
    columns = positions * row
    im2col = only(found, "im2col")
    assert (im2col.flop, im2col.bytes) == (0, 4 * (N * 4 * 25 + columns))
    threads = columns // (4 if "4>" in im2col.kernel else 1)
    assert im2col.grid == (-(-threads // 256),)
    product = only(found, "cuBLAS")
    assert product.kernel == f"cuBLAS {positions}x{row} @ {row}x8"
    assert product.flop == 2 * positions * row * 8
    assert product.bytes == 4 * (columns + row * 8 + positions * 8)
    assert product.is_product
    assert product.grid == ()
    added = only(found, "bias_leaky_relu<float>")
    assert (added.flop, added.bytes) == (2 * positions * 8, 4 * (2 * positions * 8 + 8))  # in place
    assert {(each.operation, each.phase, each.layer) for each in found} == {("convolve", "forward", "")}


@gpu
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adam_by_the_addresses_in_its_table(dtype):
    sizes = (7, 300)
    parameters = [mg.tensor(np.ones(n), dtype, "gpu", requires_grad=True) for n in sizes]
    for p in parameters:
        p.grad = mg.tensor(np.ones(p.shape), dtype, "gpu")
    adam = only(listed(optim.Adam(parameters, 0.1).step), "adam")
    factors = adam.bytes - 7 * sum(sizes) * np.dtype(dtype).itemsize  # two numbers of each parameter at most
    assert 0 <= factors <= 2 * len(sizes) * np.dtype(dtype).itemsize
    assert adam.flop == 15 * sum(sizes)
    assert (adam.operation, adam.phase) == ("Adam", "step")


@gpu
def test_the_data_set_that_a_batch_is_cut_out_of_is_not_read():
    device = backend.get("gpu")
    pixels = device.asarray(np.zeros(100 * 64, np.uint8))
    squares = device.asarray(np.array([[0, 8, 0], [64, 8, 1]]))
    found = listed(lambda: device.crop_images(pixels, squares, 8, 1, 1))
    assert [(each.kernel, each.bytes, each.flop) for each in found] == [
        ("crop_images", 2 * 64 + 2 * 3 * 8 + 2 * 64 * 4, 2 * 2 * 64)
    ]


@gpu
def test_sums_of_batch_norm_read_one_row_again():
    device = backend.get("gpu")
    x = device.asarray(np.ones((600, 3), np.float32))  # two chunks of rows
    sums, merge = listed(lambda: device.moments(x))
    partial = 2 * 2 * 3 * 8
    assert (sums.bytes, sums.flop) == (600 * 3 * 4 + partial, 4 * 600 * 3)
    assert (merge.bytes, merge.flop) == (3 * 4 + partial + 2 * 3 * 8, 2 * 2 * 3)


@gpu
def test_operations_of_cupy_s_own():
    a, b = (mg.tensor(np.ones((4, 5)), "float32", "gpu") for _ in range(2))
    found = listed(lambda: a + b)
    assert [(each.kernel, each.bytes, each.flop) for each in found] == [("CuPy add", 3 * 80, 20)]
    found = listed(lambda: mg.concatenate([a, b]))
    assert [(each.kernel, each.bytes, each.flop) for each in found] == [("CuPy copy", 160, 0)] * 2
    assert listed(lambda: (a.reshape(20), a[1:], a.transpose(), a.to("cpu"))) == []
    (copy,) = listed(lambda: a.transpose().reshape(20))
    assert (copy.kernel, copy.bytes, copy.flop, copy.grid) == ("CuPy copy", 160, 0, ())


# -- places -------------------------------------------------------------------------------------------


@gpu
def test_layers_and_phases_of_a_training_step():
    model = network().to("gpu")
    optimizer, x = optim.Adam(model.parameters(), 1e-3), images("gpu")

    def step():
        for _ in range(2):  # the second backward adds to the gradients of the first
            model(x).sum().backward()
        optimizer.step()

    found = listed(step, {"d": model})
    places = list(dict.fromkeys((each.layer.partition("(")[0], each.phase) for each in found))
    layers = ["d.0 Conv2d", "d.2 BatchNorm", "d.4 Dense"]
    for layer in layers:
        assert {(layer, "forward"), (layer, "backward")} <= set(places)
    assert places[-1] == ("d", "step")
    assert [layer for layer, phase in places if phase == "forward" and layer in layers] == layers
    first_backward = list(dict.fromkeys(p[0] for p in places if p[1] == "backward" and p[0] in layers))
    assert first_backward == layers[::-1]
    moved = only(found[: len(found) // 2], "move_statistics")
    assert moved.layer.startswith("d.2 BatchNorm(8)")
    sums = [each for each in found if each.operation == "add" and each.phase == "backward"]
    assert {each.layer.partition("(")[0] for each in sums} == set(layers)  # of their parameters' gradients
    assert len(sums) >= 6
    fills = [each for each in found if each.kernel == "CuPy fill"]
    assert {(each.layer, each.phase) for each in fills} == {("", "backward")}


@gpu
def test_an_optimizer_of_two_networks_belongs_to_none():
    models = {name: nn.Dense(2, 2).to("gpu") for name in "ab"}
    optimizer = optim.Adam([p for model in models.values() for p in model.parameters()], 0.1)
    for p in optimizer.params:
        p.grad = p.detach()
    (adam,) = listed(optimizer.step, models)
    assert (adam.layer, adam.phase) == ("", "step")


@gpu
def test_what_another_observer_does_is_not_listed():
    model, x = network().to("gpu"), images("gpu")
    alone = listed(lambda: model(x), model)

    class Other(observer.Observer):
        def end(self, subject, phase, inputs, outputs):
            F.sigmoid(outputs[0])

    with Other(), Shadow(model):
        assert listed(lambda: model(x), model) == alone


@gpu
def test_it_goes_on_after_an_error_and_can_be_entered_again():
    model, x = network().to("gpu"), images("gpu")
    found, wrong = launches(model), x.reshape(N, 1, 10, 10)
    with pytest.raises(ValueError, match="Conv2d"), found:
        model(wrong)
    assert heard.listeners == []
    with found:
        model(x)
    assert found.launches == listed(lambda: model(x), model)
    model(x)
    assert found.launches == listed(lambda: model(x), model)


@gpu
def test_another_observer_s_error_leaves_no_trace():
    model, x = network().to("gpu"), images("gpu")

    class Raises(observer.Observer):
        def end(self, subject, phase, inputs, outputs):
            raise RuntimeError("so that nobody is told of the end")

    found = launches(model)
    with pytest.raises(RuntimeError, match="so that nobody"), Raises(), found:
        model(x)
    found.launches.clear()
    with found:
        model(x)
    assert found.launches == listed(lambda: model(x), model)
    assert only(found.launches, "move_statistics").operation == ""


@gpu
@pytest.mark.parametrize("inputs", ["parameters", "x"])
def test_what_follows_a_backward_pass_is_forward_again(inputs):
    model, x = network().to("gpu"), images("gpu")
    x.requires_grad = True
    wanted = list(model.parameters()) if inputs == "parameters" else [x]

    def work():
        mg.grad(model(x).sum(), wanted)
        model(x)

    found = listed(work, model)
    alone = listed(lambda: model(x), model)
    assert found[-len(alone) :] == alone


def test_the_repr_has_the_sums():
    with launches() as found:
        pass
    assert repr(found) == "<Launches: 0 launches and 0 products: 0 B and 0 GFLOP, 0 of them in products>"
    assert repr(found) == f"<Launches: {found.sums}>"


@gpu
def test_the_list_for_people():
    model, x = network().to("gpu"), images("gpu")
    with launches(model) as found:
        model(x)
    head, *lines, last = str(found).splitlines()
    assert head.split() == ["operation", "kernel", "blocks", "bytes", "MFLOP"]
    assert lines[0] == "0 Conv2d(4, 8), forward"
    numbers = [line.split()[0] for line in lines if not line.endswith(", forward")]
    assert numbers == [str(i + 1) for i in range(len(found.launches))]
    product = next(line for line in lines if "cuBLAS 75x36 @ 36x8" in line)
    assert product.split()[-1] == "0.043"  # 2 * 75 * 36 * 8 = 43,200
    kernels = sum(not each.is_product for each in found.launches)
    assert last == found.sums
    assert last.startswith(f"{kernels} launches and 2 products: ")
