"""The backend seam: the engine on a device of another kind, and what imports what."""

import ast
import inspect
import operator
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest
from accuracy import assert_close
from foreign import ForeignBackend
from forms import FORMS, using

import minigrad as mg
import minigrad.functional as F
from minigrad import backend, nn, optim
from minigrad.backend.base import Backend
from minigrad.backend.cpu.backend import CPUBackend
from minigrad.gradcheck import check_adjoint
from minigrad.ops import OPERATIONS
from minigrad.ops.methods import METHODS
from minigrad.tensor import Tensor

CASES = [
    pytest.param(case, id=f"{name}-{case.label or 'plain'}")
    for name, operation in OPERATIONS.items()
    for case in operation.cases()
]
ROOT = Path(mg.__file__).parent

# Which module may import which, by the first part of its name: those of the lines above.
LAYERS = [
    "backend",
    "random naive observer version_counter tables",
    "for_numpy copies markup",
    "tensor",
    "creation backpropagate",
    "ops",
    "functional",
    "nn",
    "optim serialize gradcheck",
    "uses step_values",
    "capturing",
    "figures machine",
    "inspect",
    "bench bench_gpu __main__",
]
NUMPY_BELONGS_IN = {"backend", "random", "naive", "gradcheck", "inspect", "machine", "bench", "__main__"}


@pytest.fixture
def foreign():
    backend.register("foreign", ForeignBackend)
    yield "foreign"
    backend._factories.pop("foreign")
    backend._backends.pop("foreign", None)


def on(device, case, dtype="float64"):
    arrays = case.inputs(np.random.default_rng(7))
    return [mg.tensor(np.asarray(a), dtype, device, requires_grad=True) for a in arrays]


def of_both_orders(case, device, dtype):
    """The value, the gradients, recorded and not, and the gradients of these: None for what is constant."""
    inputs = on(device, case, dtype)
    y = case.call(*inputs)
    above = np.random.default_rng(1).standard_normal(y.shape)
    above = mg.tensor(above, y.dtype, device, requires_grad=True)
    plain = mg.grad(y, inputs, above, retain_graph=True)
    recorded = mg.grad(y, inputs, above, create_graph=True)
    total = sum(((g * g).sum() for g in recorded), start=0.0)
    return [y, *plain, *recorded, *mg.grad(total, [*inputs, above], allow_unused=True)]


@pytest.mark.parametrize("case", CASES)
def test_every_operation_runs_on_another_device(foreign, case):
    """Forward, backward and the gradients' gradients, the reference bodies against the CPU's forms."""
    expected, found = (of_both_orders(case, device, "float64") for device in ("cpu", foreign))
    assert {t.device for t in found if t is not None} == {foreign}
    check_all(found, expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_every_operation_is_the_same_in_every_form(case, dtype, form):
    """The same of NumPy's forms and of the reference forms, against what the CPU computes by."""
    expected = of_both_orders(case, "cpu", dtype)
    with using(form):
        found = of_both_orders(case, "cpu", dtype)
    check_all(found, expected)


def check_all(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert_close(a.numpy(), b.numpy(), str(b.dtype))


def test_a_network_trains_on_another_device(foreign):
    def trained(device):
        mg.manual_seed(3)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Dropout(0.3),
            nn.ConvTranspose2d(4, 2, 4, 2, "same", bias=False),
            nn.BatchNorm(2), nn.ReLU(), nn.Flatten(), nn.Dense(128, 1),
        ).to(device)  # fmt: skip
        optimizers = [
            optimizer(model.parameters(), 0.01) for optimizer in (optim.SGD, optim.RMSprop, optim.Adam)
        ]
        x = mg.tensor(np.random.default_rng(0).standard_normal((6, 1, 8, 8)), "float32", device)
        for optimizer in optimizers:
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(model(x), 1.0).backward()
            optimizer.step()
        return model.state_dict()

    expected, found = trained("cpu"), trained(foreign)
    for name, value in expected.items():
        assert found[name].device == "foreign"
        assert_close(found[name].numpy(), value.numpy(), "float32")


def test_gradcheck_runs_on_another_device(foreign):
    x = mg.tensor(np.random.default_rng(0).standard_normal((2, 3)), device=foreign, requires_grad=True)
    assert mg.gradcheck(lambda x: (x * x).sum() / F.softplus(x).sum(), x, order=2)
    assert check_adjoint(lambda x: x * 3.0 + 1.0, x).linear == (0,)


def test_a_file_moves_between_devices(foreign, tmp_path):
    model = nn.Dense(2, 3).to(foreign)
    mg.save(model.state_dict(), tmp_path / "m.safetensors")
    other = nn.Dense(2, 3)
    other.load_state_dict(mg.load(tmp_path / "m.safetensors"))
    assert np.array_equal(other.weight.numpy(), model.weight.numpy())


def test_devices_do_not_mix_silently(foreign):
    here, there = mg.tensor([1.0, 2.0]), mg.tensor([1.0, 2.0], device=foreign)
    with pytest.raises(ValueError, match=r"add: tensors on 'cpu' and 'foreign': move one with \.to"):
        here + there
    with pytest.raises(ValueError, match="on 'foreign'"):
        nn.Dense(2, 1)(mg.tensor([[1.0, 2.0]], device=foreign))
    with pytest.raises(TypeError, match="array on 'foreign'"):
        there + np.ones(2, np.float32)
    with pytest.raises(ValueError, match="tensors on"):
        operator.lt(here, there)
    with pytest.raises(ValueError, match=r"expected a device \(cpu, foreign, gpu\) or a dtype .*got 'tpu'"):
        here.to("tpu")
    logits = mg.tensor([[1.0, 2.0]], device=foreign)
    for labels, error in ((np.array([0]), TypeError), (mg.tensor(np.array([0])), ValueError)):
        with pytest.raises(error, match=r"cross_entropy: .*'foreign'"):
            F.cross_entropy(logits, labels)
    for condition, error in ((np.ones(2, bool), TypeError), (here > 0, ValueError)):
        with pytest.raises(error, match=r"where: .*'foreign'"):
            mg.where(condition, there, 0.0)
    assert F.cross_entropy(logits, [1]).device == mg.where([True, False], there, 0.0).device == foreign
    assert there.to("cpu").device == "cpu"
    assert np.array_equal((there.to("cpu") + here).numpy(), [2.0, 4.0])


def test_the_cpu_backend_changes_no_signature():
    parts = [part for part in CPUBackend.__mro__ if issubclass(part, Backend) and part is not Backend]
    assert len(parts) > 1
    for name, method in (item for part in parts for item in vars(part).items()):
        if callable(method) and hasattr(Backend, name) and name != "__init__":
            assert (
                inspect.signature(method).parameters.keys()
                == inspect.signature(getattr(Backend, name)).parameters.keys()
            )


def imports_of(path):
    """The names, from the package's root, of all that a module imports of minigrad, and of all else."""
    package = path.relative_to(ROOT).parent.parts
    own, others = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            parts = (*base, *(node.module.split(".") if node.module else ()))
            own |= {parts[0]} if parts else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            others.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Import):
            others |= {alias.name.partition(".")[0] for alias in node.names}
    return own, others


def modules():
    return [p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py"]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    places = {name: i for i, names in enumerate(LAYERS) for name in names.split()}
    here = path.relative_to(ROOT).parts[0].removesuffix(".py")
    own, others = imports_of(path)
    for name in own - {here}:
        assert places[name] < places[here], f"{here} imports {name}"
    assert "cupy" not in others or path.relative_to(ROOT).parts[:2] == ("backend", "gpu")
    assert "numpy" not in others or here in NUMPY_BELONGS_IN
    assert "dcgan" not in others


def test_no_modules_import_each_other():
    names = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[parts[:-1] if parts[-1] == "__init__" else parts] = path
    graph = {}
    for name, path in names.items():
        package = path.relative_to(ROOT).parent.parts
        imported = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = package[: len(package) - node.level + 1]
                base += tuple(node.module.split(".")) if node.module else ()
                imported |= {(*base, a.name) if (*base, a.name) in names else base for a in node.names}
        graph[name] = {other for other in imported if other != name}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_the_oracle_and_the_engine_do_not_compute_by_each_other():
    assert imports_of(ROOT / "naive.py")[0] == {"backend"}
    assert "from .backend.geometry import ConvGeometry" in (ROOT / "naive.py").read_text()
    users = {path.relative_to(ROOT).parts[0] for path in modules() if "naive" in imports_of(path)[0]}
    assert users == {"inspect", "ops"}
    for path in (ROOT / "ops").glob("*.py"):
        tree = ast.parse(path.read_text())
        cases = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "cases"]
        assert names_of("naive", tree) == sum(names_of("naive", case) for case in cases)


def names_of(name, tree):
    """How often a name is read there."""
    return sum(isinstance(n, ast.Name) and n.id == name for n in ast.walk(tree))


def test_the_stubs_of_tensor_are_the_table_of_methods():
    tree = ast.parse((ROOT / "tensor.py").read_text())
    cls = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Tensor")
    stubs = next(n for n in cls.body if isinstance(n, ast.If))
    assert {n.name for n in stubs.body if isinstance(n, ast.FunctionDef)} == set(METHODS)
    assert all(getattr(Tensor, name) is METHODS[name] for name in METHODS)
