"""The benchmark of steps: that it runs the recipe's own step, and says what it measured."""

import json
import weakref
from collections import Counter
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import ClassVar
from unittest.mock import MagicMock

import pytest

from dcgan import bench, presets
from dcgan.benchmark import cpu, gpu
from dcgan.benchmark.ours import our_step
from dcgan.benchmark.theirs import Learner
from dcgan.errors import UserError
from minigrad import backend, bench_gpu, inspect
from minigrad import bench as harness
from minigrad.bench import Timing


def test_a_flux_step_is_63_gflop_as_plain_products():
    step = our_step(presets.get("flux", batch_size=4))
    assert harness.gflop(step) * 32 == pytest.approx(62.3, abs=0.1)  # of 128 images


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_recipe_has_a_step(name):
    small = {"ngf": 8, "ndf": 8} if name in ("flowers", "pytorch") else {}
    step = our_step(presets.get(name, batch_size=4, **small))
    result = step()
    assert 0 < result.loss_d.item() < 20
    assert harness.gflop(step) > 0


def test_the_command_prints_a_table_and_writes_json(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(harness, "product_limit", lambda: 100.0)
    path = tmp_path / "steps.json"
    command = ["--presets", "quick", "--batch-size", "4", "--rounds", "1", "--no-pytorch"]
    assert bench.main([*command, "--json", str(path)]) == 0
    said = capsys.readouterr().out
    assert "quick, batch 4" in said
    assert "peak memory of this process" in said
    assert json.loads(path.read_text())["rows"][0]["name"] == "quick, batch 4"


def test_the_help_names_the_command(capsys):
    with pytest.raises(SystemExit) as ended:
        bench.main(["--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: dcgan bench ")


@pytest.mark.parametrize("size", ["0", "-1", "x"])
def test_a_batch_of_no_size_is_refused(size, capsys):
    with pytest.raises(SystemExit) as ended:
        bench.main(["--presets", "quick", f"--batch-size={size}"])
    assert ended.value.code == 2
    assert f"--batch-size: expected an integer of at least 1, got '{size}'" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_a_batch_of_one_is_refused_as_training_refuses_it(device):
    with pytest.raises(UserError, match="--batch-size 1: a BatchNorm needs two images or more"):
        bench.main(["--presets", "tensorflow-baseline", "quick", "--batch-size", "1", "--device", device])


def test_what_cannot_be_compiled_is_told(monkeypatch):
    monkeypatch.setattr(harness, "pytorch", lambda wanted=True: None)
    for options, reason in (
        (["--no-pytorch"], "--no-pytorch leaves them out"),
        ([], "PyTorch is not installed"),
        (["--device", "gpu", "--no-pytorch"], "--no-pytorch leaves them out"),
        (["--device", "gpu"], "PyTorch is not installed"),
    ):
        with pytest.raises(UserError, match=f"--compile: .* but {reason}"):
            bench.main(["--compile", *options])


@pytest.mark.parametrize(
    ("options", "compiled"),
    [([], True), (["--compile"], True), (["--no-compile"], False),
     (["--device", "gpu"], False), (["--device", "gpu", "--compile"], True)],
)  # fmt: skip
def test_by_default_all_recipes_run_and_pytorch_is_compiled_on_the_cpu_alone(options, compiled, monkeypatch):
    ran = []

    def made(*arguments):
        def run(recipes, rounds, path):
            ran.append(([preset.name for preset in recipes], arguments[-1]))
            return 0

        return SimpleNamespace(run=run)

    monkeypatch.setattr(harness, "pytorch", lambda wanted=True: "torch")
    monkeypatch.setattr(bench.device, "require", lambda device: device)
    monkeypatch.setattr(cpu, "Bench", lambda torch, compiled: made(torch, compiled))
    monkeypatch.setattr(gpu, "Bench", lambda engine, torch, compiled: made(engine, torch, compiled))
    assert bench.main(options) == 0
    assert ran == [(list(presets.PRESETS), compiled)]


# ---- on the CPU ----


class CPULearner:
    """In place of PyTorch's: counts its steps; those of the ways in `fail` end with an error."""

    fail: ClassVar[dict] = {}

    def __init__(self, torch, preset, *, channels_last=False, compiled=False):
        self.way = (channels_last, compiled)
        torch.events.append((preset.batch_size, *self.way))
        self.torch = torch

    def step(self):
        if self.way in self.fail:
            raise self.fail[self.way]
        self.torch.steps[self.way] += 1


@pytest.fixture
def on_cpu(monkeypatch):
    """Runs the benchmark of small recipes beside something like PyTorch."""
    monkeypatch.setattr(harness, "PAUSE", 0)
    monkeypatch.setattr(harness, "product_limit", lambda: 100.0)
    monkeypatch.setattr(cpu, "Learner", CPULearner)
    monkeypatch.setattr(CPULearner, "fail", {})

    def run(compiled=True, batch_sizes=(2,), rounds=1, path=None):
        torch = SimpleNamespace(__version__="2.0", events=[], steps=Counter())
        torch.compiler = SimpleNamespace(reset=lambda: torch.events.append("reset"))
        recipes = [presets.get("tensorflow-baseline", batch_size=n) for n in batch_sizes]
        assert cpu.Bench(torch, compiled).run(recipes, rounds, path) == 0
        return torch

    return run


PLAIN, LAST, COMPILED = (False, False), (True, False), (True, True)


def test_each_way_of_pytorch_has_its_column(on_cpu, tmp_path, capsys):
    path = tmp_path / "steps.json"
    torch = on_cpu(batch_sizes=(2, 3), rounds=2, path=path)
    each = [[(n, *PLAIN), (n, *LAST), "reset", (n, *COMPILED)] for n in (2, 3)]
    assert torch.events == [*each[0], *each[1]]
    steps = 2 * (cpu.WARM_UP + 2 * (1 + harness.RUNS))
    assert torch.steps == dict.fromkeys((PLAIN, LAST, COMPILED), steps)
    head, limit, *heads, first, second, means, _ = capsys.readouterr().out.splitlines()
    assert head.endswith(f", PyTorch 2.0, kernels: {backend.cpu_kernels().name}")
    assert limit.startswith("limit: 100 GFLOP/s")
    assert heads == cpu.heads().splitlines()
    assert first.startswith("tensorflow-baseline, batch 2 ")
    assert second.startswith("tensorflow-baseline, batch 3 ")
    assert "-" not in first.split()
    assert means.startswith("geometric mean of ours/PyTorch: ")
    written = json.loads(path.read_text())
    assert written["versions"]["torch"] == "2.0"
    assert [row["name"] for row in written["rows"]] == [f"tensorflow-baseline, batch {n}" for n in (2, 3)]
    for row in written["rows"]:
        for way in ("ours", "theirs", "channels_last", "compiled"):
            assert 0 < row[way]["minimum"] <= row[way]["median"]
        assert row["failures"] == {}


def test_without_compiling_its_cell_is_empty(on_cpu, capsys):
    torch = on_cpu(compiled=False)
    assert torch.events == [(2, *PLAIN), (2, *LAST)]
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("tensorflow-base")]
    assert [i for i, cell in enumerate(row.split()) if cell == "-"] == [3 + 8]


def test_a_way_of_pytorch_s_that_fails_has_an_empty_cell_and_a_line_says_why_once(
    on_cpu, tmp_path, capsys, monkeypatch
):
    path = tmp_path / "steps.json"
    monkeypatch.setattr(CPULearner, "fail", {COMPILED: ImportError("no\n compiler")})
    torch = on_cpu(batch_sizes=(2, 3), path=path)
    assert torch.steps[PLAIN] == torch.steps[LAST] > 0
    *_, first, why, second, means, _ = capsys.readouterr().out.splitlines()
    for row in (first, second):
        assert [i for i, cell in enumerate(row.split()) if cell == "-"] == [3 + 8]
    assert why == "  PyTorch, compiled: ImportError: no compiler"
    assert means.startswith("geometric mean")
    for row in json.loads(path.read_text())["rows"]:
        assert row["compiled"] is None
        assert row["failures"] == {"PyTorch, compiled": "ImportError: no compiler"}


def cpu_step(**changes):
    return cpu.Step(**{
        "name": "flux, batch 128", "gflop": 10.0, "ours": Timing(0.2, 0.1), "theirs": Timing(0.4, 0.3),
        "share": 0.5, "channels_last": Timing(0.25, 0.2), "compiled": Timing(0.5, 0.1), **changes,
    })  # fmt: skip


def test_the_line_of_a_step_by_hand():
    # 10 GFLOP in 0.2 s; 0.2 over 0.4, and over 0.25, the best by the medians.
    assert cpu.line(cpu_step()).split() == [
        "flux,", "batch", "128", "10.00", "200", "100", "50", "50%", "400", "300", "250", "500",
        "0.50", "0.80",
    ]  # fmt: skip
    assert cpu.line(cpu_step(theirs=None)).split()[8:] == ["-", "-", "250", "500", "-", "0.80"]
    alone = cpu_step(theirs=None, channels_last=None, compiled=None)
    assert cpu.line(alone).split()[8:] == ["-"] * 6


def test_the_columns_of_steps_are_below_their_heads():
    above, below = cpu.heads().splitlines()
    row = cpu.line(cpu_step(name="tensorflow-baseline, batch 128", gflop=312.45))
    assert len(row) == len(above) == len(below) <= 120
    assert row.index("50%") == above.index(" of ")
    assert row.index("312.45") + 6 == below.index("GFLOP") + 5
    assert row.index("250") + 3 == below.index("last") + 4


def test_ratios_of_steps_are_geometric_means_of_those_that_both_ran():
    other = cpu_step(theirs=Timing(0.1, 0.1), channels_last=None, compiled=None)  # 2, and 2 to the best
    alone = cpu_step(theirs=None, channels_last=None, compiled=None)
    # sqrt(0.5 * 2) and sqrt(0.8 * 2)
    assert cpu.ratios([cpu_step(), other, alone]) == "geometric mean of ours/PyTorch: 1.00, ours/best: 1.26"
    assert cpu.ratios([alone]) == ""


# ---- on a GPU ----

SMALL = ["--device", "gpu", "--presets", "quick", "--batch-size", "4", "--rounds", "1"]


def test_without_a_gpu_it_says_what_is_missing(monkeypatch):
    def none():
        raise RuntimeError("CuPy finds no GPU")

    monkeypatch.delitem(backend._backends, "gpu", raising=False)
    monkeypatch.setitem(backend._factories, "gpu", none)
    with pytest.raises(
        UserError, match=r"--device gpu: .* no GPU that it can use \(CuPy finds no GPU\)\. With"
    ):
        bench.main(SMALL)


@pytest.fixture
def quickly(monkeypatch):
    """Turns of one run."""
    monkeypatch.setattr(bench_gpu, "RUNS", 1)
    monkeypatch.setattr(bench_gpu, "HOST_RUNS", 1)
    found = {False: inspect.Limits(1000.0, 100.0, 256), True: inspect.Limits(4000.0, 100.0, 256)}
    monkeypatch.setattr(gpu.Bench, "_limits", lambda _: found)


@pytest.mark.gpu
def test_the_command_on_a_gpu(quickly, tmp_path, capsys):
    path = tmp_path / "steps.json"
    assert bench.main([*SMALL, "--no-pytorch", "--json", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "compute capability" in lines[0]
    assert lines[1] == "limits: a large matrix product, GFLOP/s: 1,000 in float32, 4,000 in TF32; " + (
        "a large copy, GB/s: 100"
    )
    title = next(i for i, line in enumerate(lines) if line.startswith("quick, batch 4: 0.1 GFLOP"))
    assert [line[:18].strip() for line in lines[title + 1 :]] == ["ours", "ours, captured"]
    assert max(map(len, lines[2:])) <= 120
    (step,) = json.loads(path.read_text())["steps"]
    assert [(row["way"], row["tf32"]) for row in step["rows"]] == [
        ("ours", False), ("ours", True), ("ours, captured", False), ("ours, captured", True),
    ]  # fmt: skip
    for row in step["rows"]:
        assert 0 < row["minimum"] <= row["median"]
        assert row["host"] > 0
        assert row["memory"] > 2**20
        assert row["failure"] == ""
    assert not backend.get("gpu").allows_tf32


@pytest.mark.gpu
@pytest.mark.parametrize("captured", [False, True])
def test_our_step_on_the_gpu_is_that_of_the_cpu(captured):
    preset = presets.get("flux", batch_size=2)
    step = our_step(preset, "gpu", captured)
    on_gpu = [step().loss_d.item() for _ in range(4)]
    step = our_step(preset)
    assert on_gpu[:1] == pytest.approx([step().loss_d.item()], rel=1e-4)
    assert len(set(on_gpu)) == 4  # z is drawn anew


class OtherCuda:
    """As much of torch.cuda as the benchmark uses."""

    def __init__(self, available):
        self.is_available = lambda: available
        self.memory, self.peaks = 100, iter([400, 500, 600, 700])
        self.steps_before_reset = 0
        self.empty_cache = lambda: None
        self.memory_allocated = lambda: self.memory
        self.max_memory_allocated = lambda: next(self.peaks)

    def reset_peak_memory_stats(self):
        self.steps_before_reset = OtherLearner.steps


class OtherLearner:
    """In place of PyTorch's: its steps do nothing, and can't be captured."""

    made: ClassVar[list] = []
    steps = 0

    def __init__(self, torch, preset, device="cpu", *, channels_last=False, compiled=False):
        assert channels_last
        tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        OtherLearner.made.append((preset.name, device, compiled, tf32))

    def step(self):
        OtherLearner.steps += 1

    def capture(self):
        raise RuntimeError("no graph\nof this")


def other_torch(available):
    flags = SimpleNamespace(allow_tf32=False)
    backends = SimpleNamespace(cuda=SimpleNamespace(matmul=flags), cudnn=SimpleNamespace(allow_tf32=False))
    return SimpleNamespace(__version__="2.0", cuda=OtherCuda(available), backends=backends)


@pytest.fixture
def beside(monkeypatch, quickly):
    """Runs the benchmark on the CPU as if that were the GPU, beside something like PyTorch."""
    engine = backend.get("cpu")
    monkeypatch.setattr(type(engine), "allow_tf32", lambda *_: None)
    monkeypatch.setattr(gpu, "Learner", OtherLearner)
    monkeypatch.setattr(OtherLearner, "made", [])
    monkeypatch.setattr(OtherLearner, "steps", 0)

    def run(torch, compiled=False, batch_sizes=(2,)):
        recipes = [presets.get("tensorflow-baseline", batch_size=n) for n in batch_sizes]
        return gpu.Bench(engine, torch, compiled).run(recipes, 1, None)

    return run


def test_pytorch_s_ways_have_their_rows(beside, capsys):
    torch = other_torch(True)
    assert beside(torch, compiled=True) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("PyTorch 2.0")
    lines = lines[-8:]
    rows = {line[:21].strip(): line[21:].split() for line in lines[:5]}
    assert list(rows) == ["ours", "ours, captured", "PyTorch", "PyTorch, CUDA graph", "PyTorch, compiled"]
    assert rows["PyTorch, CUDA graph"] == ["-"] * 12
    assert rows["ours"][4] != "-"  # the share of the copy
    assert rows["PyTorch"][4] == "-"
    assert lines[5] == "    PyTorch, CUDA graph, float32 and TF32: RuntimeError: no graph of this"
    assert lines[6].startswith("ours, captured / PyTorch, geometric mean: ")
    assert lines[7].startswith("ours, captured / PyTorch, compiled, geometric mean: ")
    name = "tensorflow-baseline"
    made = [(name, "cuda", compiled, (tf32, tf32)) for compiled in (False, True) for tf32 in (False, True)]
    eager, compiled = made[:2], made[2:]
    thrown_away = [each for each in eager for _ in range(2)]  # before each eager one, of its precision
    both = [each for pair in zip(eager, compiled, strict=True) for each in pair]
    assert OtherLearner.made == [*thrown_away, *thrown_away, *both]
    assert torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.allow_tf32


def test_launches_and_products_of_a_step_are_counted(beside, capsys, monkeypatch):
    works = [SimpleNamespace(is_product=n == 1, bytes=10**8) for n in range(3)]

    @contextmanager
    def launches():
        yield SimpleNamespace(launches=works)

    monkeypatch.setattr(inspect, "launches", launches, raising=False)
    assert beside(None) == 0
    said = capsys.readouterr().out
    assert "tensorflow-baseline, batch 2: 0.0 GFLOP, 2 launches, 1 products, 286 MiB read and written" in said


def test_the_memory_of_pytorch_is_what_its_tensors_take(beside):
    bench_ = gpu.Bench(backend.get("cpu"), other_torch(True), False)
    learner = partial(OtherLearner, bench_.torch, presets.get("quick"), channels_last=True)
    with bench_._their_peak(learner) as peak:
        pass
    assert peak.bytes == 300
    assert bench_.torch.cuda.steps_before_reset == 1  # what cuDNN tries in the first one is not counted


def test_pytorch_without_a_gpu_is_left_out(beside, capsys):
    assert beside(other_torch(False)) == 0
    said = capsys.readouterr().out
    assert "PyTorch is installed, but finds no GPU: it is left out" in said
    assert OtherLearner.made == []
    assert beside(None) == 0
    assert "PyTorch" not in capsys.readouterr().out


def test_a_step_of_ours_that_fails_is_told_by_the_exit_code(beside, capsys, monkeypatch):
    def fails(preset, device, captured=False):
        if captured:
            raise ValueError("of the test")
        return our_step(preset, device)

    monkeypatch.setattr(gpu, "our_step", fails)
    assert beside(None) == 1
    assert "    ours, captured, float32 and TF32: ValueError: of the test" in capsys.readouterr().out


def test_a_recipe_without_enough_memory_says_what_to_do_and_the_others_go_on(beside, capsys, monkeypatch):
    def fails(preset, device, captured=False):
        if preset.batch_size == 2:
            raise MemoryError("of the test")
        return our_step(preset, "cpu")

    monkeypatch.setattr(gpu, "our_step", fails)
    monkeypatch.setattr(backend.get("cpu"), "device", "gpu", raising=False)

    @contextmanager
    def enough(device, batch_size):
        assert device == "gpu"
        try:
            yield
        except MemoryError:
            raise UserError("too small") from None

    monkeypatch.setattr(gpu, "enough_memory", enough)
    monkeypatch.setattr(gpu, "gflop", lambda step: 1.0)
    assert beside(None, batch_sizes=(2, 3)) == 1
    *_, title, row, failure, next_title, _, _ = capsys.readouterr().out.splitlines()
    assert title == "tensorflow-baseline, batch 2"
    assert row.split() == ["ours", *["-"] * 12]
    assert failure == "    ours, float32 and TF32: too small"
    assert next_title.startswith("tensorflow-baseline, batch 3: 1.0 GFLOP")


def test_a_counted_step_is_gone_before_the_ways_are_timed(beside, monkeypatch):
    made = []

    class Step:
        def __call__(self):
            return None

    def our_step(preset, device, captured=False):
        step = Step()
        made.append(weakref.ref(step))
        return step

    def measure(*_):
        assert [ref() for ref in made] == [None]
        return ()

    monkeypatch.setattr(gpu, "our_step", our_step)
    monkeypatch.setattr(bench_gpu, "measure", measure)
    assert beside(None) == 0


# ---- PyTorch's steps, without PyTorch ----


@pytest.mark.parametrize("channels_last", [False, True])
def test_channels_are_innermost_in_networks_and_images_where_it_is_said(channels_last):
    torch = MagicMock()
    learner = Learner(torch, presets.get("tensorflow-baseline"), channels_last=channels_last)
    placed = {"device": "cpu"} | ({"memory_format": torch.channels_last} if channels_last else {})
    network, images = torch.nn.Sequential.return_value.to, torch.rand.return_value.__mul__.return_value
    assert network.call_args_list == [((), placed)] * 2
    assert images.__sub__.return_value.to.call_args_list == [((), placed)]
    assert learner.generator is network.return_value
    assert not torch.compile.called


@pytest.mark.parametrize(
    ("device", "fails", "made"),
    [
        ("cpu", False, [{"fused": True}]),
        ("cpu", True, [{"fused": True}, {"fused": False}]),  # PyTorch before 2.4
        ("cuda", False, [{"fused": True, "capturable": True}]),
    ],
)
def test_adam_is_fused_where_pytorch_has_that(device, fails, made):
    calls = []

    def adam(params, lr, betas, eps, **options):
        calls.append(((params, lr, betas, eps), options))
        if fails and options["fused"]:
            raise RuntimeError("fused: expected parameters on cuda")
        return "adam"

    learner = Learner.__new__(Learner)
    learner.device, learner.preset = device, presets.get("flux")
    learner.torch = SimpleNamespace(optim=SimpleNamespace(Adam=adam))
    network = SimpleNamespace(parameters=lambda: iter("ab"))
    assert learner._adam(network, 0.1) == "adam"
    betas = (learner.preset.beta1, learner.preset.beta2)
    assert calls == [((["a", "b"], 0.1, betas, learner.preset.adam_eps), options) for options in made]


def test_pytorch_s_generator_learns_without_gradients_of_the_discriminator():
    learner, needed = Learner.__new__(Learner), []

    class Discriminator:
        needs = True

        def __call__(self, fake):
            needed.append(self.needs)

        def requires_grad_(self, needs):
            self.needs = needs

    learner.discriminator, learner.adam_g = Discriminator(), None
    learner._cost = lambda judged, label: None
    learner._descend = lambda adam, loss: needed.append(learner.discriminator.needs)
    learner._update_generator(None)
    assert needed == [False, False]  # in the forward pass and in the backward pass
    assert learner.discriminator.needs


class CudaThatCannotCapture:
    """Streams as PyTorch has them; the capture fails at its end, and leaves its stream current."""

    CUDAGraph = staticmethod(lambda: None)

    def __init__(self):
        self.current = self.before = self.Stream()

    def Stream(self):
        return SimpleNamespace(wait_stream=lambda stream: None)

    def current_stream(self):
        return self.current

    @contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def graph(self, graph):
        self.current = self.Stream()
        yield
        raise RuntimeError("of the test")


def test_after_a_capture_of_pytorch_s_that_fails_the_stream_is_that_of_before():
    learner, cuda = Learner.__new__(Learner), CudaThatCannotCapture()
    learner.torch, learner.step = SimpleNamespace(cuda=cuda), lambda: None
    learner.adam_g = learner.adam_d = SimpleNamespace(zero_grad=lambda: None)
    with pytest.raises(RuntimeError, match="of the test"):
        learner.capture()
    assert cuda.current is cuda.before
