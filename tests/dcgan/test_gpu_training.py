"""Training on the GPU beside the CPU: the same steps, the same checkpoints, few launches; and the shadow.

In float64 the two go the same way for two steps of every recipe. In float32 they do for one step; from there
on a recipe may make much of the last bits. With four images a batch `quick` and `tensorflow` do: BatchNorm
divides by the small differences of nearly equal fakes, Adam's first step takes the signs of gradients near 0,
and an activation at its kink falls on one side or the other. So there each operation is checked by itself.
"""

import functools
import itertools
from dataclasses import replace

import numpy as np
import pytest
from counting import required_counter
from PIL import Image

import dcgan
import minigrad as mg
from dcgan import latent, models, pictures, presets, sample, sampling, train
from dcgan.data import mnist
from dcgan.data.batches import Batches
from dcgan.data.feed import Feed
from dcgan.data.sources import ImageSet
from dcgan.run import checkpoint, shadow, step_log, trained
from dcgan.run.images import batches_of
from dcgan.run.learner import Learner
from dcgan.steps import RULES, Gan
from dcgan.vitals.measure import Measurement
from minigrad import backend, nn
from minigrad.inspect import Shadow

pytestmark = pytest.mark.gpu

RECIPES = pytest.mark.parametrize("name", presets.PRESETS)
SMALL = ("--preset", "quick", "--steps", "2", "--batch-size", "4")
COUNTED = (0, 1, 2, 5, 6, 7)  # by the stand-in for a GPU, as it numbers them
LAUNCHES, TO_DEVICE, TO_HOST, WAITS, ALLOCATIONS, GRAPHS = range(6)


def recipe(name):
    narrow = {"ngf": 8, "ndf": 8} if name in ("flowers", "pytorch") else {}
    return presets.get(name, batch_size=4, **narrow)


class Run:
    """Training by hand on a device and in a dtype, with made-up images."""

    def __init__(self, name, device, dtype="float32"):
        self.preset, self.dtype, self.done = recipe(name), dtype, 0
        p = self.preset
        images = np.random.default_rng(0).integers(0, 256, (40, p.image_size, p.image_size)).astype(np.uint8)
        generator = mg.Generator(p.seed, 2)
        batches = Batches(
            images, p.batch_size, generator, channels=p.channels, crop=p.crop, flip=p.flip, shuffle=p.shuffle
        )
        self.feed = Feed(batches, device)
        mg.manual_seed(p.seed)
        networks = [network.to(device).to(dtype) for network in models.build(p)]
        self.networks = dict(zip(("generator", "discriminator"), networks, strict=True))
        z = mg.Generator(p.seed, 1)
        self.gan = Gan.of(p, *networks, lambda n: latent.draw(p, n, z, device).to(dtype))

    def step(self):
        self.done += 1
        return RULES[self.preset.step](self.gan, self.feed(self.done).to(self.dtype))

    def state(self):
        """Every parameter and buffer, by its name."""
        named = (
            (f"{name}.{key}", t) for name, n in self.networks.items() for key, t in n.state_dict().items()
        )
        return {name: t.numpy() for name, t in named}

    def without_gradient(self):
        """The biases right before a BatchNorm, which takes off what they add."""
        found = set()
        for name, network in self.networks.items():
            for i, (module, after) in enumerate(itertools.pairwise(network)):
                if isinstance(after, nn.BatchNorm) and getattr(module, "bias", None) is not None:
                    found.add(f"{name}.{i}.bias")
        return found


@functools.cache
def two_steps(name, device, dtype):
    """The scalars of two steps; in float64 each with all parameters after it, else with None."""
    run, steps = Run(name, device, dtype), []
    for _ in range(2):
        scalars = {key: value.item() for key, value in vars(run.step()).items()}
        steps.append((scalars, run.state() if dtype == "float64" else None))
    return steps


@pytest.fixture(scope="module", autouse=True)
def nothing_is_kept():
    yield
    two_steps.cache_clear()


def assert_scalars_agree(found, expected, tolerance):
    assert found.keys() == expected.keys() == {"loss_d", "loss_g", "d_x", "d_g_z1", "d_g_z2"}
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=tolerance, abs=0), key


# ---- the same steps ----


@RECIPES
def test_two_steps_in_float64_are_the_cpu_s(name):
    found, expected = (two_steps(name, device, "float64") for device in ("gpu", "cpu"))
    left_out = Run(name, "cpu").without_gradient()
    assert len(left_out) == (2 if name == "flux-draft" else 0)
    for (scalars, state), (wanted, values) in zip(found, expected, strict=True):
        assert_scalars_agree(scalars, wanted, 1e-9)
        assert state.keys() == values.keys() > left_out
        for key in values.keys() - left_out:
            distance = np.linalg.norm(state[key] - values[key])
            assert state[key].dtype == np.float64
            assert distance <= 1e-7 * np.linalg.norm(values[key]), key


@RECIPES
def test_a_step_moves_every_parameter(name):
    start = Run(name, "gpu", "float64").state()
    _, state = two_steps(name, "gpu", "float64")[0]
    unmoved = {key for key, value in start.items() if np.array_equal(value, state[key])}
    assert unmoved == set()


@RECIPES
def test_the_first_step_in_float32_is_the_cpu_s(name):
    found, expected = (two_steps(name, device, "float32") for device in ("gpu", "cpu"))
    assert_scalars_agree(found[0][0], expected[0][0], 1e-4)


@pytest.mark.parametrize("name", ["flux", "flux-draft", "tensorflow-baseline", "flowers", "pytorch"])
def test_so_is_the_second_where_a_recipe_makes_little_of_rounding(name):
    found, expected = (two_steps(name, device, "float32") for device in ("gpu", "cpu"))
    assert_scalars_agree(found[1][0], expected[1][0], 1e-4)


@pytest.mark.parametrize("name", ["quick", "tensorflow"])
def test_elsewhere_each_operation_of_two_steps_agrees_by_itself(name):
    run = Run(name, "gpu")
    with Shadow(run.networks) as shadow:
        scalars = [{key: value.item() for key, value in vars(run.step()).items()} for _ in range(2)]
    assert shadow.checked > 200
    assert shadow.worst < 1e-4
    assert scalars == [alone for alone, _ in two_steps(name, "gpu", "float32")]  # nothing was moved by it


# ---- the same checkpoints ----


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two steps of `quick` by the command on each device: the directories."""
    images = np.random.default_rng(0).integers(0, 256, (200, 28, 28)).astype(np.uint8)
    path = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(mnist, "images", lambda split="train": images)
        for device in ("gpu", "cpu"):
            out = str(path / device)
            assert train.main([*SMALL, "--device", device, "--set", "frame_every=1", "--out", out]) == 0
    return path / "gpu", path / "cpu"


def test_a_checkpoint_of_the_gpu_is_one_of_the_cpu(runs):
    here, there = (checkpoint.load(path) for path in runs)
    assert here.tensors.keys() == there.tensors.keys()
    for key, value in there.tensors.items():
        assert (here.tensors[key].dtype, here.tensors[key].shape) == (value.dtype, value.shape), key
    assert here.preset == there.preset
    assert here.position == there.position == {"step": 2, "epoch": 1}
    for key in ("rng.engine", "rng.noise", "fixed_z", "optimizer_g.steps", "optimizer_d.steps"):
        assert np.array_equal(here.tensors[key], there.tensors[key]), key
    names = [{path.relative_to(run) for path in run.rglob("*") if path.is_file()} for run in runs]
    assert names[0] == names[1]


def test_a_generator_from_the_gpu_draws_on_the_cpu_what_it_drew_there(runs, tmp_path):
    path = runs[0]
    loaded = checkpoint.load(path)
    generator = trained.load_generator(loaded)
    assert {p.device for p in generator.parameters()} == {"cpu"}
    images = sampling.generate(generator, mg.tensor(loaded.tensors["fixed_z"]), "running")
    grid = pictures.grid(pictures.to_bytes(images), loaded.preset.grid_rows, loaded.preset.grid_columns)
    with Image.open(path / "frames" / "00000002.png") as png:
        drawn = np.asarray(png).astype(int)
    assert drawn.std() > 1
    assert np.abs(drawn - grid.squeeze()).max() <= 1
    assert sample.main([str(path), "--out", str(tmp_path / "more.png"), "--grid", "2x3"]) == 0
    with Image.open(tmp_path / "more.png") as png:
        assert np.asarray(png).std() > 1


def test_a_generator_from_the_cpu_draws_on_the_gpu(runs):
    loaded = checkpoint.load(runs[1])
    z = mg.Generator(0).normal((5, *loaded.preset.z_shape))
    images = {
        device: sampling.generate(
            trained.load_generator(loaded).to(device), mg.tensor(z, device=device), "running"
        )
        for device in ("gpu", "cpu")
    }
    assert np.abs(images["gpu"] - images["cpu"]).max() < 1e-5


@pytest.mark.parametrize(("source", "target"), [(0, "cpu"), (1, "gpu")])
def test_training_goes_on_from_a_checkpoint_of_the_other_device(runs, source, target):
    loaded, run = checkpoint.load(runs[source]), Run("quick", target)
    for name, network in run.networks.items():
        network.load_state_dict(loaded.under(name))
    for name, optimizer in (("optimizer_g", run.gan.optimizer_g), ("optimizer_d", run.gan.optimizer_d)):
        optimizer.load_state_dict(loaded.under(name))
        state = optimizer.state_dict()
        assert state.pop("steps") == [2] * len(optimizer.params)
        assert (state.pop("lr"), state.pop("betas"), state.pop("eps")) == (optimizer.lr, (0.5, 0.999), 1e-8)
        assert (state.pop("weight_decay"), state.pop("epsilon_hat")) == (0.0, False)
        for key, value in state.items():
            assert value.device == target
            assert np.array_equal(value.numpy(), loaded.tensors[f"{name}.{key}"])
            assert not key.startswith("second.") or value.numpy().any()
    result = run.step()
    assert all(np.isfinite(value.item()) for value in vars(result).values())
    assert run.gan.optimizer_g.steps[0] == 3


# ---- few launches, no waits ----


@pytest.fixture
def count():
    """Gives the six counts so far; only the stand-in for a GPU counts."""
    return required_counter(*COUNTED)


def learner_of(name, graph, count=40, batch_size=4):
    """A learner of a small recipe, on made-up images."""
    preset = replace(recipe(name), batch_size=batch_size)
    images = np.random.default_rng(0).integers(0, 256, (count, preset.image_size, preset.image_size))
    batches = batches_of(preset, ImageSet(images.astype(np.uint8), []))
    return Learner(preset, batches, "gpu", graph)


def test_a_step_of_flux_is_few_launches_and_no_wait(count):
    import cupy

    run, pool = Run("flux", "gpu"), cupy.get_default_memory_pool()
    assert run.feed.on_device
    for _ in range(2):
        result = run.step()
    before, held = count(), pool.total_bytes()
    result = run.step()
    counted = [b - a for a, b in zip(before, count(), strict=True)]
    assert 0 < counted[LAUNCHES] <= 110
    # Two z, the places of the images, those of four dropouts among random numbers, the factors of two Adams.
    assert counted[TO_DEVICE] == 9
    assert counted[TO_HOST] == counted[WAITS] == counted[ALLOCATIONS] == 0
    assert pool.total_bytes() == held
    assert np.isfinite(result.loss_d.item())


@RECIPES
def test_a_captured_step_is_one_launch_one_copy_and_no_wait(count, name):
    learner = learner_of(name, graph=True)
    for _ in range(4):
        learner.step(4)
        learner.count_step()
    before = count()
    learner.step(4)
    counted = [b - a for a, b in zip(before, count(), strict=True)]
    assert counted[GRAPHS] == 1
    assert counted[TO_DEVICE] == 1  # all that the host makes anew lies side by side
    assert counted[TO_HOST] == counted[WAITS] == counted[ALLOCATIONS] == 0


def test_a_run_goes_from_step_to_step_without_waiting_for_the_gpu(count, run, monkeypatch):
    monkeypatch.setattr(step_log, "FRESH", float("inf"))  # whatever the time that a step takes here
    counted, seen = Learner.count_step, []

    def watched(self):
        seen.append(count())
        counted(self)

    monkeypatch.setattr(Learner, "count_step", watched)
    assert run(*SMALL, "--device", "gpu", "--steps", "9")[0] == 0
    assert len(seen) == 9
    # The first step is measured, and its scalars are written. Two warm up, and the fourth is captured.
    steps = np.diff(np.array(seen)[3:], axis=0)
    assert steps[:, TO_HOST].tolist() == steps[:, WAITS].tolist() == [0] * 5
    assert steps[:, TO_DEVICE].tolist() == [1] * 5


# ---- captured steps ----


def left_of(learner, results):
    """All that a training has left: the scalars of its steps and the state of a checkpoint."""
    scalars = [{name: value.numpy().tobytes() for name, value in vars(r).items()} for r in results]
    state = {
        f"{part}.{name}": value.numpy().tobytes() if isinstance(value, mg.Tensor) else value
        for part, values in learner.state_dicts().items()
        if part != "rng"
        for name, value in values.items()
    }
    return scalars, state, mg.random.get_state(), learner.noise.state


def nine_steps(name, graph, path=None):
    """Steps of 3, 3, 3, 3 (measured), 2, 3, 3, 3 and 3 images; with a path, a resume after the sixth.

    Returns what they have left, the vital signs, and the sizes of the batches that the rule itself was given.
    """
    learner, results, calls = learner_of(name, graph, count=14, batch_size=3), [], []
    rule = learner.rule

    def counted(gan, real):
        calls.append(len(real))
        return rule(gan, real)

    learner.rule = counted
    for step in range(1, 10):
        if step == 4:
            real = learner.next_batch()
            with Measurement(learner.gan, real) as measured:
                results.append(learner.step_on(real))
            vitals = measured.vitals(step, 1, results[-1])
        else:
            results.append(learner.step(learner.batches.count(step)))
        learner.count_step()
        if step == 6 and path is not None:
            save(learner, path)
            learner = learner_of(name, graph, count=14, batch_size=3)
            learner.restore(checkpoint.load(path))
            learner.rule = counted
    assert not graph or learner.step.is_captured
    return left_of(learner, results), vitals, calls


@RECIPES
def test_captured_steps_leave_bit_for_bit_what_uncaptured_ones_leave(name, tmp_path):
    """With a measured step, a partial batch and a resume in between."""
    expected, vitals, _ = nine_steps(name, graph=False)
    found, measured, calls = nine_steps(name, True, tmp_path / "saved.safetensors")
    assert found == expected
    assert measured == vitals
    # Two that warm up, the capture, the measured one and the partial batch; and after the resume, again.
    assert calls == [3, 3, 3, 3, 2, 3, 3, 3]


def test_a_captured_learner_goes_back_to_a_checkpoint(tmp_path):
    """Its tensors get other values, and its optimizers other memory: it is captured anew."""
    learner, results = learner_of("quick", graph=True), []
    for step in range(9):
        if step == 1:
            path = save(learner, tmp_path / "saved.safetensors")
        results.append(learner.step(4))
        learner.count_step()
    expected = left_of(learner, results[1:6])
    learner.restore(checkpoint.load(path))
    results = []
    for _ in range(5):
        results.append(learner.step(4))
        learner.count_step()
    assert learner.step.is_captured
    assert left_of(learner, results)[0] == expected[0]


def save(learner, path):
    checkpoint.save(path, learner.preset, learner.position(), learner.state_dicts())
    return path


def test_the_command_leaves_the_same_files_with_and_without_a_graph(run, tmp_path, capsys):
    """Over an epoch's end, whose batch is partial, and with a resume in between."""
    more = ["--device", "gpu", "--vitals-every", "6", "--set", "frame_every=4"]
    for name, options in (("graph", []), ("plain", ["--no-graph"])):
        assert run(*SMALL, *more, *options, "--batch-size", "11", "--steps", "9", out=name)[0] == 0
        more_of_it = ["--resume", str(tmp_path / name), "--steps", "21", *more[:4], *options]
        assert train.main(more_of_it) == 0
        said = ", each step one CUDA graph, " if name == "graph" else ", without a CUDA graph, "
        assert said in capsys.readouterr().out
    files = [
        {path.relative_to(tmp_path / name): path for path in (tmp_path / name).rglob("*") if path.is_file()}
        for name in ("graph", "plain")
    ]
    assert files[0].keys() == files[1].keys()
    differing = [str(name) for name in files[0] if files[0][name].read_bytes() != files[1][name].read_bytes()]
    assert sorted(differing) == ["config.json", "timing.jsonl"]


# ---- the shadow of the command ----


def test_the_command_s_shadow_agrees_with_a_gpu_that_is_right(run, tmp_path):
    code, said = run(*SMALL, "--device", "gpu", "--shadow", "cpu")
    assert code == 0
    line = next(line for line in said.splitlines() if line.startswith("shadow: "))
    words = line.split()
    assert int(words[1]) > 200
    assert line.startswith(
        f"shadow: {words[1]} results of 2 steps agree with the CPU's; the largest error is "
    )
    assert 0 < float(words[-1]) < 1e-4
    assert checkpoint.load(tmp_path / "run").position["step"] == 2


def test_the_shadow_changes_nothing(run, tmp_path):
    for name, more in (("with", ("--shadow", "cpu")), ("without", ())):
        assert run(*SMALL, "--device", "gpu", *more, out=name)[0] == 0
    a, b = (checkpoint.load(tmp_path / name).tensors for name in ("with", "without"))
    assert a.keys() == b.keys()
    assert [key for key in a if not np.array_equal(a[key], b[key])] == []


def wrong_leaky_relu_backward(right):
    return lambda self, dy, y, slope: right(self, dy, y, slope * 1.01)


def wrong_normalize(right):
    """In training; the statistics that are used otherwise are float32."""
    return lambda self, x, mean, *rest: right(self, x, mean, *rest) * (1.01 if mean.dtype == "float64" else 1)


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("leaky_relu_backward", wrong_leaky_relu_backward,
         "discriminator.0 Conv2d(1, 16): convolve, gradient of input 1: error 0.0"),
        ("normalize", wrong_normalize, "generator.1 BatchNorm(256): batch_norm, forward: error 0.01; "),
    ],
)  # fmt: skip
def test_the_command_s_shadow_names_the_layer_of_a_mistake(run, tmp_path, monkeypatch, name, wrong, said):
    kind = type(backend.get("gpu"))
    monkeypatch.setattr(kind, name, wrong(getattr(kind, name)))
    code, output = run(*SMALL, "--device", "gpu", "--shadow", "cpu")
    assert code == 1
    lines = output.splitlines()
    assert "shadow: after 0 steps the CPU has another result" in lines
    assert lines[-1].startswith(f"shadow: {said}")
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_a_mistake_in_a_later_step_is_told_with_its_step(run, monkeypatch):
    kind, calls = type(backend.get("gpu")), []
    right = kind.logit_bce

    def wrong(self, x, target):
        calls.append(target)
        loss, gradient = right(self, x, target)
        return (loss * 2, gradient) if len(calls) == 5 else (loss, gradient)  # three in each step

    monkeypatch.setattr(kind, "logit_bce", wrong)
    code, output = run(*SMALL, "--device", "gpu", "--shadow", "cpu")
    assert code == 1
    assert "shadow: after 1 steps the CPU has another result" in output
    assert "shadow: mean_logit_binary_cross_entropy, forward: error 1; " in output


def test_the_shadow_allows_for_tf32_where_it_is_asked_for(run):
    try:
        code, said = run(*SMALL, "--device", "gpu", "--tf32", "--shadow", "cpu")
        assert code == 0
        worst = float(said.split("the largest error is ")[1].split()[0])
        assert 1e-5 < worst < 1e-2
    finally:
        backend.get("gpu").allow_tf32(False)
    assert shadow.TF32_TOLERANCE["float64"] == 1e-10


def test_a_program_trains_on_it_bit_for_bit(few_digits):
    losses = []

    def callback(state):
        losses.append(state.line.loss_d)
        assert state.sample(2).shape == (2, 28, 28, 1)

    small = {"batch_size": 8, "device": "cuda", "grid_rows": 2, "grid_columns": 2}
    run = dcgan.fit("quick", few_digits, steps=3, callbacks=[callback], **small)
    assert run.device == "gpu"
    assert losses == [pytest.approx(line.loss_d) for line in run.metrics]
    whole = dcgan.fit("quick", few_digits, steps=5, **small)
    again, whole = ((each.path / checkpoint.FILE_NAME).read_bytes() for each in (run.resume(steps=2), whole))
    assert again == whole
