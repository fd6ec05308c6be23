"""The vital signs: measured beside NumPy, not a bit of training changed; and each planted illness named."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import minigrad as mg
from dcgan import latent, models, presets, steps, train
from dcgan.data import mnist
from dcgan.errors import UserError
from dcgan.recipe.layers import (
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Flatten,
    LeakyReLU,
    ReLU,
    Reshape,
    Sigmoid,
    Tanh,
)
from dcgan.run import checkpoint, checkup
from dcgan.vitals import diagnosis, measure, picture
from dcgan.vitals.line import VitalsLine
from dcgan.vitals.values import BatchNormGap, StepVitals

N = 16
TINY = {
    "z_shape": (5,),
    "generator": (
        Dense(2 * 49, bias=False), BatchNorm(), ReLU(), Reshape(2, 7, 7),
        ConvTranspose(3, 4, 2, 1, bias=False), BatchNorm(), LeakyReLU(0.2), ConvTranspose(1, 4, 2, 1), Tanh(),
    ),
    "discriminator": (
        Conv(3, 4, 2, 1), LeakyReLU(0.2), Conv(4, 4, 2, 1, bias=False), BatchNorm(), LeakyReLU(0.2),
        Flatten(), Dense(1),
    ),
}  # fmt: skip
RULES = pytest.mark.parametrize("rule", steps.RULES)


class Small:
    """Two tiny networks, their optimisers and images, made the same way each time."""

    def __init__(self, rule="same_fakes", lr=0.01, **fields):
        mg.manual_seed(0)
        self.rule = steps.RULES[rule]
        rates = {"lr_generator": lr, "lr_discriminator": lr, "beta1": 0.9}
        self.preset = presets.get("quick", step=rule, batch_size=N, **{**rates, **TINY, **fields})
        self.g, self.d = models.build(self.preset)
        stream = mg.Generator(0, 1)
        self.gan = steps.Gan.of(self.preset, self.g, self.d, lambda n: latent.draw(self.preset, n, stream))
        real = np.random.default_rng(1).uniform(-0.9, 0.9, (N, 1, 28, 28)).astype(np.float32)
        self.real = mg.tensor(real)

    def measured(self, rule=None):
        with measure.Measurement(self.gan, self.real) as seen:
            result = (rule or self.rule)(self.gan, self.real)
        return seen.vitals(1, 1, result)

    def arrays(self):
        networks = {"generator": self.g, "discriminator": self.d}
        return {f"{k}.{n}": t.numpy().copy() for k, m in networks.items() for n, t in m.state_dict().items()}


def by_name(line):
    return {f"{layer.network}.{layer.name}": layer for layer in line.layers}


# -- what is measured --------------------------------------------------------------------------------


@RULES
def test_a_measured_step_is_the_same_step_bit_for_bit(rule):
    plain, watched = Small(rule), Small(rule)
    for _ in range(3):
        expected = plain.rule(plain.gan, plain.real)
        line = watched.measured()
        assert line.d_x == expected.d_x.item()
        assert line.d_g_z2 == expected.d_g_z2.item()
    a, b = plain.arrays(), watched.arrays()
    assert all(np.array_equal(a[key], b[key]) for key in a)
    for one, other in (
        (plain.gan.optimizer_g, watched.gan.optimizer_g),
        (plain.gan.optimizer_d, watched.gan.optimizer_d),
    ):
        for p, q in zip(one.params, other.params, strict=True):
            assert np.array_equal(p.grad.numpy(), q.grad.numpy())
    assert watched.g.forward_hooks == watched.d.forward_hooks == []


@RULES
def test_gradients_and_updates_are_those_of_the_step(rule):
    small = Small(rule)
    small.rule(small.gan, small.real)
    before = small.arrays()
    line = small.measured()
    after = small.arrays()
    layers = by_name(line)
    expected_order = [f"generator.{i}" for i in (0, 1, 2, 4, 5, 7, 8)]
    expected_order += [f"discriminator.{i}" for i in (0, 2, 3, 6)]
    assert list(layers) == expected_order
    for network, module in (("generator", small.g), ("discriminator", small.d)):
        grads = {f"{network}.{k}": p.grad.numpy().astype(np.float64) for k, p in module.named_parameters()}
        for name in (n for n in layers if n.startswith(network)):
            keys = [key for key in grads if key.rpartition(".")[0] == name]
            if not keys:
                assert layers[name].gradient_norm is layers[name].update_ratio is None
                continue
            flat = np.concatenate([grads[key].ravel() for key in keys])
            assert layers[name].gradient_norm == pytest.approx(np.sqrt(np.sum(flat**2)), rel=1e-5)
            old = np.concatenate([before[key].ravel() for key in keys]).astype(np.float64)
            new = np.concatenate([after[key].ravel() for key in keys]).astype(np.float64)
            ratio = np.sqrt(np.sum((new - old) ** 2)) / np.sqrt(np.sum(old**2))
            assert layers[name].update_ratio == pytest.approx(ratio, rel=1e-5)


def drawn(small, rule):
    """What G's gradients went through, and D's first fakes: drawn by hand, before the step."""
    twice = rule == "fresh_noise"
    stream = mg.Generator(0, 1)
    z = [latent.draw(small.preset, N, stream) for _ in range(1 + twice)]
    state = small.g.state_dict()
    with mg.no_grad():
        small.g.train(not twice)
        judged = small.g(z[0]).numpy()
        small.g.train()
        learned = small.g(z[-1]).numpy()
    small.g.load_state_dict(state)
    return learned, judged


def mean_distance(images):
    """The root of the mean of the squared differences of all pairs, pair by pair."""
    pairs = [(a - b) ** 2 for i, a in enumerate(images) for b in images[:i]]
    return np.sqrt(np.mean(pairs))


@RULES
def test_spread_and_statistics_are_those_of_the_pictures(rule):
    small, by_hand = Small(rule), Small(rule)
    line = small.measured()
    learned, judged = (images.astype(np.float64) for images in drawn(by_hand, rule))
    real = by_hand.real.numpy().astype(np.float64)
    assert line.spread == pytest.approx(mean_distance(learned) / mean_distance(real), rel=1e-4)

    def statistics(images):
        """D's BatchNorm sees its second convolution's result."""
        x = mg.tensor(images.astype(np.float32))
        with mg.no_grad():
            for layer in list(by_hand.d)[:3]:
                x = layer(x)
        x = x.numpy().astype(np.float64)
        return x.mean(axis=(0, 2, 3)), x.std(axis=(0, 2, 3))

    (mean_r, std_r), (mean_f, std_f) = statistics(real), statistics(judged)
    apart = np.sqrt(((mean_r - mean_f) ** 2 + (std_r - std_f) ** 2) / ((std_r**2 + std_f**2) / 2 + 1e-5))
    assert line.batch_norm_gap == (BatchNormGap("3", pytest.approx(apart.mean(), rel=1e-3)),)


def test_dead_units_are_counted_of_relus_fused_or_not():
    d = (Conv(3, 4, 2, 1), ReLU(), Flatten(), Dense(4), Flatten(), ReLU(), Dense(1))
    small = Small(discriminator=d)
    bias = small.g[1].bias.numpy().copy()
    bias[[0, 1, 2, 5]] = -100.0
    small.g[1].bias.data = bias
    small.d[0].bias.data = np.array([0.0, -100.0, -100.0], np.float32)
    small.d[3].bias.data = np.array([-900.0, 900.0, 900.0, 900.0], np.float32)
    layers = by_name(small.measured())
    assert layers["generator.2"].dead == pytest.approx(4 / 98, rel=1e-5)
    assert layers["discriminator.1"].dead == pytest.approx(2 / 3, rel=1e-5)
    assert layers["discriminator.5"].dead == pytest.approx(1 / 4, rel=1e-5)  # of its own pass
    assert layers["generator.8"].dead is layers["generator.0"].dead is None


def test_a_leaky_unit_can_not_die():
    small = Small()
    small.d[0].bias.data = np.full(3, -100.0, np.float32)
    layers = by_name(small.measured())
    assert layers["discriminator.0"].gradient_norm > 0
    assert not {"generator.6", "discriminator.1", "discriminator.4"} & layers.keys()


def test_saturated_outputs_are_counted_of_tanh_and_sigmoid():
    d = (*TINY["discriminator"], Sigmoid())
    small = Small(discriminator=d, loss="bce")
    small.d[6].bias.data = np.array([50.0], np.float32)
    small.g[7].bias.data = np.array([20.0], np.float32)
    layers = by_name(small.measured())
    assert layers["generator.8"].saturated == 1.0
    assert layers["discriminator.7"].saturated == 1.0
    small = Small()
    small.g[7].weight.data = small.g[7].weight.numpy() * 60
    learned, _ = drawn(small, "same_fakes")
    share = np.mean(np.abs(learned) >= 0.99)
    assert 0.1 < share < 0.9
    assert by_name(small.measured())["generator.8"].saturated == pytest.approx(share, abs=1e-4)


@RULES
def test_units_of_a_discriminator_that_sees_both_kinds_at_once_are_those_of_the_fakes(rule):
    small = Small(rule, discriminator=(Flatten(), Dense(1), Sigmoid()), loss="bce", lr=1e-6)
    small.g[7].bias.data = np.array([20.0], np.float32)  # white pictures
    small.d[1].weight.data = np.ones((784, 1), np.float32).reshape(small.d[1].weight.shape)
    small.real = mg.tensor(np.zeros((N, 1, 28, 28), np.float32))
    assert by_name(small.measured())["discriminator.2"].saturated == 1.0
    small.g[7].bias.data = np.array([0.0], np.float32)
    small.g[7].weight.data = small.g[7].weight.numpy() * 0  # grey ones
    small.real = mg.tensor(np.ones((N, 1, 28, 28), np.float32))
    assert by_name(small.measured())["discriminator.2"].saturated == 0.0


@pytest.mark.parametrize("count", [3, N])
def test_a_discriminator_with_batch_norm_shows_all_of_its_fakes(count):
    d = (Conv(3, 4, 2, 1), BatchNorm(), Flatten(), Dense(1), Sigmoid())
    small, by_hand = (Small("fresh_noise", discriminator=d, loss="bce") for _ in range(2))
    _, fakes = drawn(by_hand, "fresh_noise")
    fakes[:, :, :14] = -0.5
    small.real = mg.tensor(fakes[:count])  # half of the real pixels are those of the first fakes
    seen, measured = [], measure._share_near
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "_share_near", lambda x, limits: seen.append(len(x)) or measured(x, limits))
        small.measured()
    assert seen == [N, N, N, count]  # G's tanh, D's sigmoid, the tanh that learned, the real images


def test_so_few_values_tell_nothing_of_a_unit():
    assert measure._dead(np.full((15, 4), -1.0)) is None
    assert measure._dead(np.full((16, 4), -1.0)) == 1.0
    assert measure._dead(np.full((4, 2, 2, 2), np.nan)) is None


def test_the_distance_is_that_of_all_pairs():
    images = np.random.default_rng(0).normal(size=(5, 2, 3, 3))
    assert measure._distance(images) == pytest.approx(mean_distance(images), rel=1e-9)
    assert measure._distance(np.repeat(images[:1], 7, axis=0).astype(np.float32)) == 0
    assert measure._distance(images[:1]) is None


def test_black_and_white_of_the_real_pictures_are_counted():
    small = Small()
    real = small.real.numpy().copy()
    real[: N // 4] = -1.0
    real[0] = 0.995
    small.real = mg.tensor(real)
    assert small.measured().real_saturated == 0.25


# -- planted illnesses, each named -------------------------------------------------------------------


def signs(*lines):
    """The signs found at the last of lines, which stand for successive measures; each has its sentence."""
    lines = [replace(line, step=100 * i) for i, line in enumerate(lines, 1)]
    found = diagnosis.findings(lines)
    for each in found:
        assert re.fullmatch(rf"At step {100 * len(lines)} .*\d.*\.", each.sentence)
        assert "eople" in each.remedy
    return {each.sign: each.sentence for each in found}


def cut_off(gan, real):
    """The Flux tutorial's published step: G's fakes are made without a graph."""
    fake = gan.generator(gan.noise(len(real))).detach()
    *costs, on_real, on_fake = steps.update_discriminator(gan, real, fake)
    gan.optimizer_g.zero_grad()
    judged = gan.discriminator(fake)
    gan.optimizer_g.step()
    return steps.step_result(gan, sum(costs), gan.loss.cost(judged, 1.0), on_real, on_fake, judged)


def test_a_healthy_step_has_no_findings():
    small = Small(lr=1e-4)
    assert signs(*(small.measured() for _ in range(3))) == {}


def test_a_generator_that_no_gradient_reaches_is_named():
    found = signs(Small().measured(cut_off))
    assert list(found) == ["generator-does-not-move"]
    assert "its gradient is gone, its norm is 0." in found["generator-does-not-move"]


@RULES
def test_a_generator_whose_last_layer_is_zero_is_named(rule):
    small = Small(rule)
    small.g[7].weight.data = np.zeros_like(small.g[7].weight.numpy())
    small.gan.optimizer_g.lr = 0.0
    found = signs(small.measured())["generator-does-not-move"]
    named = "generator.0 (Dense), generator.1 (BatchNorm), generator.4 (ConvTranspose2d) and 1 more"
    assert found == f"At step 100 a part of the generator does not move: no gradient reaches {named}."


@RULES
def test_a_generator_that_takes_no_step_is_named(rule):
    small = Small(rule)
    small.gan.optimizer_g.lr = 1e-12
    found = signs(small.measured())["generator-does-not-move"]
    assert re.search(
        r"no layer goes further than .*e-1\d of its weights' size, though its gradient's norm", found
    )


def test_a_generator_that_only_drifts_is_named():
    """Adam's momentum moves it on when the gradient has gone."""
    small = Small()
    small.measured()
    for p in small.d.parameters():
        p.data = np.zeros_like(p.numpy())
    small.gan.optimizer_d.lr = 0.0
    line = small.measured()
    assert max(layer.update_ratio or 0 for layer in line.layers if layer.network == "generator") > 1e-3
    assert "is the optimiser's momentum" in signs(line)["generator-does-not-move"]


@RULES
def test_a_generator_that_ignores_its_noise_is_named(rule):
    small = Small(rule)
    small.g[0].weight.data = np.zeros_like(small.g[0].weight.numpy())
    small.gan.optimizer_g.lr = 1e-6
    lines = [small.measured() for _ in range(2)]
    assert lines[0].spread == 0
    assert "collapse" not in signs(lines[0])  # not at the first sight
    assert "differ from each other by 0" in signs(*lines)["collapse"]


def judging(line, d_x, d_g_z1, d_g_z2):
    return replace(line, d_x=d_x, d_g_z1=d_g_z1, d_g_z2=d_g_z2)


def test_a_discriminator_that_wins_is_named():
    small = Small()
    small.real = mg.tensor(np.full((N, 1, 28, 28), 0.9, np.float32))
    small.gan.optimizer_d.lr, small.gan.optimizer_g.lr = 0.05, 1e-6
    lines = [small.measured() for _ in range(12)]
    assert "discriminator-wins" in signs(*lines)
    assert "discriminator-wins" not in signs(*lines[-2:])
    assert "discriminator-wins" not in signs(*lines[-3:-1], judging(lines[-1], 0.98, 0.001, 0.001))
    assert "discriminator-wins" not in signs(*lines[-3:-1], judging(lines[-1], 1.0, 0.011, 0.001))
    assert "discriminator-wins" not in signs(*lines[-3:-1], judging(lines[-1], 1.0, 0.001, 0.011))


def test_a_generator_that_wins_is_named():
    small = Small()
    small.gan.optimizer_d.lr, small.gan.optimizer_g.lr = 0.0, 0.05
    small.d[6].bias.data = np.array([4.0], np.float32)
    lines = [small.measured() for _ in range(5)]
    assert "D(G(z)) is 0.9" in signs(*lines)["generator-wins"]
    assert "generator-wins" not in signs(*lines[:2], judging(lines[2], 0.99, 0.9, 0.9))


def test_statistics_that_are_apart_are_named():
    small = Small()
    small.real = mg.tensor((small.real.numpy() * 0.01 + 0.95).astype(np.float32))
    small.gan.optimizer_d.lr = 0.0
    small.g[7].bias.data = np.array([-3.0], np.float32)
    lines = [small.measured() for _ in range(3)]
    gap = lines[-1].batch_norm_gap[0].gap
    assert gap > 2
    assert f"by {gap:.1f} in discriminator.3" in signs(*lines)["statistics-apart"]


def test_dead_layers_are_named():
    small = Small(lr=1e-6)
    small.g[1].bias.data = np.full(98, -100.0, np.float32)
    found = signs(small.measured(), small.measured())
    assert found["dead-units"].partition(": ")[2].startswith("100% of generator.2 (ReLU)")
    assert "no gradient reaches generator.0 (Dense)" in found["generator-does-not-move"]


def test_saturated_pictures_are_named_where_real_ones_are_not():
    small = Small(lr=1e-6)
    small.g[7].bias.data = np.array([-20.0], np.float32)
    line = small.measured()
    assert "100.0% of generator.8 (Tanh); of real pixels 0.0%" in signs(line, line)["saturated"]
    line = replace(line, real_saturated=1.0)  # black and white only
    assert "saturated" not in signs(line, line)


def test_a_planted_nan_is_named_and_is_null():
    small = Small()
    small.d[2].weight.data = np.full_like(small.d[2].weight.numpy(), np.nan)
    line = small.measured()
    assert line.d_x is line.d_g_z1 is by_name(line)["discriminator.0"].gradient_norm is None
    assert StepVitals.from_json(json.loads(json.dumps(line.to_json(), allow_nan=False))) == line
    found = diagnosis.findings([line])
    assert [each.sign for each in found] == ["not-finite"]
    assert (
        "D(x), D(G(z)), D(G(z)) after the first update, the gradient of generator.0 (Dense)"
        in found[0].sentence
    )


# -- a run -------------------------------------------------------------------------------------------

FEW = (
    "--preset",
    "quick",
    "--batch-size",
    "16",
    "--epochs",
    "9",
    "--set",
    "grid_rows=2",
    "--set",
    "grid_columns=2",
)


@pytest.fixture
def tiny(monkeypatch, few_digits):
    """`quick` with the tiny networks, on as many images as make two batches."""
    monkeypatch.setattr(mnist, "images", lambda split="train": few_digits[:32])
    monkeypatch.setitem(presets.PRESETS, "quick", replace(presets.QUICK, **TINY))


@pytest.fixture
def no_plots(monkeypatch):
    for name in ("save_losses", "save_side_by_side"):
        monkeypatch.setattr(f"dcgan.pictures.{name}", lambda content, path: None)
    monkeypatch.setattr(picture, "save", lambda lines, path: path.write_bytes(repr(lines).encode()))


def nothing_measured(step, found=()):
    return VitalsLine(step, 1, None, None, None, (), None, None, (), findings=tuple(found))


def lines(path):
    return [
        json.loads(line, parse_constant=pytest.fail)
        for line in (path / "vitals.jsonl").read_text().splitlines()
    ]


def test_a_run_measures_its_first_step_and_every_so_many(run, tiny, no_plots, tmp_path):
    assert run(*FEW, "--steps", "7", "--vitals-every", "3", out="with")[0] == 0
    assert run(*FEW, "--steps", "7", "--vitals-every", "0", out="without")[0] == 0
    found = lines(tmp_path / "with")
    assert [(line["step"], line["epoch"]) for line in found] == [(1, 1), (3, 2), (6, 3)]
    metrics = [json.loads(line) for line in (tmp_path / "with" / "metrics.jsonl").read_text().splitlines()]
    for line in found:
        assert {key: line[key] for key in ("d_x", "d_g_z1", "d_g_z2")}.items() <= metrics[
            line["step"] - 1
        ].items()
    drawn = [VitalsLine.from_json(line) for line in found]
    assert (tmp_path / "with" / "vitals.png").read_bytes() == repr(drawn).encode()
    assert not {"vitals.jsonl", "vitals.png"} & {p.name for p in (tmp_path / "without").iterdir()}
    a, b = ((tmp_path / out / checkpoint.FILE_NAME).read_bytes() for out in ("with", "without"))
    assert a == b


def test_a_finding_is_told_when_it_begins_and_at_the_end_and_a_resumed_run_is_equal(
    run, tiny, no_plots, tmp_path, monkeypatch
):
    monkeypatch.setitem(steps.RULES, "same_fakes", cut_off)
    small = (*FEW, "--vitals-every", "1")
    _, said = run(*small, "--steps", "6", out="whole")
    assert said.count("warning: at step 1 the generator does not move: its gradient is gone") == 1
    assert said.count("does not move:") == 1
    assert "People look whether G's loss has the graph" in said
    assert "warning: still so at step 6: generator-does-not-move (see " in said
    run(*small, "--steps", "2", out="parts")
    parts = tmp_path / "parts"
    with open(parts / "vitals.jsonl", "a") as file:
        file.write('{"step": 3}\n')  # past the checkpoint
    train.main(["--resume", str(parts), "--steps", "6", "--vitals-every", "1"])
    assert (parts / "vitals.jsonl").read_bytes() == (tmp_path / "whole" / "vitals.jsonl").read_bytes()
    assert (parts / "vitals.png").read_bytes() == (tmp_path / "whole" / "vitals.png").read_bytes()


def test_what_comes_and_goes_is_told_three_times(tmp_path):
    said = []
    progress = type("Progress", (), {"say": lambda self, line: said.append(line)})()
    looking = checkup.Checkup(1, None, checkup.RunDirectory(tmp_path), progress)
    found = diagnosis.finding("collapse", 1, "the generator has collapsed")
    for step in range(1, 12):
        looking._add(nothing_measured(step, [found] if step % 2 else []))
    assert len(said) == 3


def test_damaged_lines_are_told_at_resume(run, tiny, no_plots, tmp_path):
    run(*FEW, "--steps", "2")
    path = tmp_path / "run" / "vitals.jsonl"
    (line,) = lines(tmp_path / "run")
    for damage in (
        {"layers": 3},
        {"findings": [{"sign": "flu"}]},
        {"spread": "wide"},
        {"step": 1, "epoch": None},
    ):
        path.write_text(json.dumps({**line, **damage}) + "\n")
        with pytest.raises(UserError, match="vitals.jsonl is damaged .*expected"):
            train.main(["--resume", str(tmp_path / "run"), "--steps", "3"])


@pytest.mark.parametrize("every", ["1", "100"])
def test_a_run_that_diverges_says_so_among_the_vital_signs(run, tiny, no_plots, tmp_path, monkeypatch, every):
    """Whether the step was measured or not."""
    rule, done = steps.RULES["same_fakes"], []

    def planted(gan, real):
        done.append(1)
        if len(done) == 3 or len(done) > 5:
            gan.discriminator[2].weight.data = np.full_like(gan.discriminator[2].weight.numpy(), np.inf)
        return rule(gan, real)

    monkeypatch.setitem(steps.RULES, "same_fakes", planted)
    code, said = run(*FEW, "--steps", "5", "--vitals-every", every)
    assert code == 1
    assert "The run has diverged: at step 3" in said
    found = lines(tmp_path / "run")
    assert [line["step"] for line in found] == ([1, 2, 3] if every == "1" else [1, 3])
    finding = found[-1]["findings"][0]
    assert finding["sign"] == "not-finite"
    assert finding["sentence"].startswith("At step 3 numbers are not finite: ")
    assert "the first comes up in discriminator.2 Conv2d(3, 4), the forward of" in finding["sentence"]
    assert [f["sign"] for f in found[-1]["findings"]].count("not-finite") == 1


@pytest.mark.parametrize(("last", "expected"), [(3, (0.5, 0.25, 0.125)), (2, (None, None, None))])
def test_a_step_that_diverged_unmeasured_is_written_with_its_own_judgements(tmp_path, last, expected):
    scalars = {"loss_d": None, "loss_g": 1.0, "d_x": 0.5, "d_g_z1": 0.25, "d_g_z2": 0.125}
    written = [json.dumps({"step": step, "epoch": 1, **scalars}) for step in range(1, last + 1)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*written, ""]))
    batches = type("Batches", (), {"epoch_of": lambda self, step: 10 * step})()
    checkup.Checkup(100, batches, checkup.RunDirectory(tmp_path), None).diverged(3, "in a layer")
    (line,) = lines(tmp_path)
    assert (line["d_x"], line["d_g_z1"], line["d_g_z2"]) == expected
    assert (line["step"], line["epoch"], line["layers"], line["batch_norm_gap"]) == (3, 30, [], [])
    assert line["spread"] is line["real_saturated"] is None
    assert [found["sign"] for found in line["findings"]] == ["not-finite"]


def test_the_picture_shows_lines_with_nothing_in_them(tmp_path):
    small = Small()
    line = VitalsLine(**vars(small.measured()), findings=())
    bad = nothing_measured(3, [diagnosis.finding("not-finite", 3, "numbers are not finite")])
    picture.save([line, replace(line, step=2), bad], tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as png:
        assert np.asarray(png.convert("RGB")).std() > 5


@pytest.fixture
def panels(monkeypatch, tmp_path):
    """Draws lines, and gives the sentences of the panels that have one, in their order."""
    seen = []
    explain = picture.explain_if_empty

    def watched(axes, why):
        explain(axes, why)
        seen.extend(text.get_text() for text in axes.texts)

    monkeypatch.setattr(picture, "explain_if_empty", watched)

    def drawn(*lines):
        seen.clear()
        picture.save(lines, tmp_path / "a.png")
        return list(seen)

    return drawn


UNKNOWN = "Not known: a unit has too few values,\nor some are not finite"
NO_UNITS = "No ReLU, Tanh or Sigmoid here:\nno dead units or saturated outputs to count"


@pytest.mark.parametrize(
    ("last", "said"),
    [((), [NO_UNITS]), ((Tanh(),), []), ((ReLU(),), [UNKNOWN])],
)
def test_a_panel_without_units_that_die_or_saturate_says_so(panels, last, said):
    small = Small(discriminator=(*TINY["discriminator"], *last))
    vitals = small.measured()
    if said == [UNKNOWN]:  # as of a batch of fewer images
        layers = (*vitals.layers[:-1], replace(vitals.layers[-1], dead=None))
        vitals = replace(vitals, layers=layers)
    assert panels(VitalsLine(**vars(vitals), findings=())) == said


def test_panels_of_what_was_not_measured_say_so(panels):
    said = panels(nothing_measured(1))
    assert said == [
        *["Nothing was measured"] * 6, "No number is finite",
        "Not known: it takes two images that differ,\nand numbers that are finite",
    ]  # fmt: skip


def test_gradients_that_are_gone_are_said_to_be_none(panels):
    line = VitalsLine(**vars(Small().measured()), findings=())
    layers = tuple(replace(layer, gradient_norm=0.0) for layer in line.layers if layer.network == "generator")
    others = tuple(layer for layer in line.layers if layer.network == "discriminator")
    assert panels(replace(line, layers=layers + others)) == ["No number is above 0", NO_UNITS]
