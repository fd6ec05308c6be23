"""The losses and the scalars of a step against their formulas in float64, and where they saturate."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad as mg
from dcgan import models, presets, steps
from dcgan.losses import LOSSES
from minigrad import nn, optim

LABELS = pytest.mark.parametrize("label", [0.0, 1.0])
SEARCH = settings(derandomize=True, deadline=None, max_examples=60, database=None)


def sigmoid(x):
    return np.exp(-np.logaddexp(0, -np.asarray(x, np.float64)))


def of_logits(x, label):
    """-log of the sigmoid of x, or of -x for label 0, without ever making the probability."""
    return np.logaddexp(0, -x if label else x).mean()


def clamped(p, label):
    """-log p or -log(1 - p), the logarithm at least -100."""
    with np.errstate(divide="ignore"):
        return -np.maximum(np.log(p if label else 1 - p), -100).mean()


def with_epsilon(p, label):
    return -np.log((p if label else 1 - p) + 1e-12).mean()


ORACLES = {"bce_with_logits": of_logits, "bce": clamped, "bce_epsilon": with_epsilon}
BOTH = pytest.mark.parametrize("loss", ["bce", "bce_epsilon"])
ALL = pytest.mark.parametrize("loss", ORACLES)


def cost(loss, outputs, label, dtype=np.float32):
    """The loss and its gradient for a list of D's outputs."""
    given = mg.tensor(np.asarray(outputs, dtype).reshape(-1, 1))
    given.requires_grad = True
    value = LOSSES[loss].cost(given, label)
    value.backward()
    assert value.shape == ()
    return value.item(), given.grad.numpy()[:, 0]


def outputs(loss, rng, count):
    x = rng.normal(0, 2, count)
    return x if loss == "bce_with_logits" else sigmoid(x)


def test_there_are_three_losses_and_one_is_of_logits():
    assert set(LOSSES) == set(ORACLES)
    assert [name for name, loss in LOSSES.items() if loss.takes_logits] == ["bce_with_logits"]


@ALL
@LABELS
@pytest.mark.parametrize(("dtype", "within"), [(np.float32, 2e-6), (np.float64, 1e-13)])
def test_a_loss_is_its_formula(loss, label, dtype, within):
    given = outputs(loss, np.random.default_rng(0), 50).astype(dtype)
    value, _ = cost(loss, given, label, dtype)
    assert value == pytest.approx(ORACLES[loss](given.astype(np.float64), label), rel=within)


@ALL
@LABELS
def test_a_gradient_is_that_of_its_formula(loss, label):
    given = outputs(loss, np.random.default_rng(1), 20)
    _, gradient = cost(loss, given, label, np.float64)
    h = 1e-6
    for i in range(len(given)):
        up, down = given.copy(), given.copy()
        up[i] += h
        down[i] -= h
        slope = (ORACLES[loss](up, label) - ORACLES[loss](down, label)) / (2 * h)
        assert gradient[i] == pytest.approx(slope, rel=1e-5, abs=1e-9)


@SEARCH
@given(x=st.floats(-8, 8, width=32), label=st.sampled_from([0.0, 1.0]))
def test_on_logits_and_on_probabilities_they_agree_until_the_sigmoid_saturates(x, label):
    expected, _ = cost("bce_with_logits", [x], label)
    p = mg.functional.sigmoid(mg.tensor(np.array([[x]], np.float32)))
    for loss in ("bce", "bce_epsilon"):
        assert LOSSES[loss].cost(p, label).item() == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(("logit", "label"), [(17.0, 0.0), (-104.0, 1.0)])
def test_a_saturated_sigmoid_costs_100_and_its_logit_what_it_is(logit, label):
    """They are different functions: float32's sigmoid of 17 is 1, and the logarithm of 0 is held at -100."""
    logits = mg.tensor(np.array([[logit]], np.float32))
    p = mg.functional.sigmoid(logits)
    assert LOSSES["bce"].cost(p, label).item() == 100.0
    assert LOSSES["bce_with_logits"].cost(logits, label).item() == pytest.approx(abs(logit), rel=1e-6)
    assert LOSSES["bce_epsilon"].cost(p, label).item() == pytest.approx(12 * np.log(10), rel=1e-6)


@pytest.mark.parametrize(
    ("p", "label", "wrong"), [(0.0, 1.0, True), (1.0, 0.0, True), (0.0, 0.0, False), (1.0, 1.0, False)]
)
def test_the_ends_of_the_losses_on_probabilities(p, label, wrong):
    assert cost("bce", [p], label)[0] == (100.0 if wrong else 0.0)
    epsilon = 27.631021 if wrong else 0.0  # -log 1e-12
    assert cost("bce_epsilon", [p], label)[0] == pytest.approx(epsilon, rel=1e-6, abs=1e-11)


@BOTH
@pytest.mark.parametrize(("p", "label"), [(0.0, 1.0), (1.0, 0.0)])
def test_the_gradient_at_a_saturated_probability_is_finite_and_points_back(loss, p, label):
    """1 / 1e-12 in both: PyTorch's bound, and TensorFlow's epsilon."""
    _, gradient = cost(loss, [p], label)
    assert gradient[0] == pytest.approx(-1e12 if label else 1e12, rel=1e-5)


@LABELS
def test_the_logits_never_overflow(label):
    value, gradient = cost("bce_with_logits", [-3e4, 3e4], label)
    assert value == pytest.approx(1.5e4, rel=1e-6)
    assert gradient.tolist() == ([-0.5, 0.0] if label else [0.0, 0.5])


def test_the_probability_of_logits_is_their_sigmoid_and_others_are_one_already():
    x = np.array([[-3.0], [0.0], [2.0]], np.float32)
    found = LOSSES["bce_with_logits"].probability(mg.tensor(x)).numpy()
    assert np.allclose(found, sigmoid(x), rtol=1e-6)
    for loss in ("bce", "bce_epsilon"):
        assert np.array_equal(LOSSES[loss].probability(mg.tensor(x)).numpy(), x)


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("flux", "bce_with_logits"), ("flux-draft", "bce_with_logits"), ("tensorflow", "bce_epsilon"),
        ("tensorflow-baseline", "bce_epsilon"), ("flowers", "bce"), ("pytorch", "bce"),
    ],
)  # fmt: skip
def test_d_ends_in_a_sigmoid_only_where_the_loss_is_on_probabilities(name, loss):
    preset = presets.get(name)
    assert preset.loss == loss
    _, discriminator = models.build(preset)
    ends_in_sigmoid = isinstance(list(discriminator)[-1], nn.Sigmoid)
    assert ends_in_sigmoid == (loss != "bce_with_logits")


# -- the scalars of a step -------------------------------------------------------------------------------

REAL, NOISE = np.array([0.5, -1.0, 2.0]), np.array([1.0, -2.0, 0.25, 3.0])


class Affine:
    """A gan of numbers: G(z) = a z + b, D(x) = c x + d, and the same in float64 beside it."""

    def __init__(self, loss, lr):
        self.loss = loss
        g, d = nn.Dense(1, 1), nn.Dense(1, 1)
        self.g, self.d = (0.7, -0.4), (1.3, 0.2)
        for layer, values in ((g, self.g), (d, self.d)):
            nn.init.constant_(layer.weight, values[0])
            nn.init.constant_(layer.bias, values[1])
        self.layers = g, d
        judge = nn.Sequential(d) if loss == "bce_with_logits" else nn.Sequential(d, nn.Sigmoid())
        self.gan = steps.Gan(
            g, judge, optim.Adam(g.parameters(), lr), optim.Adam(judge.parameters(), lr),
            lambda n: mg.tensor(NOISE[:n, None].astype(np.float32)), len(NOISE), LOSSES[loss],
        )  # fmt: skip

    def step(self, rule):
        result = steps.RULES[rule](self.gan, mg.tensor(REAL[:, None].astype(np.float32)))
        assert not any(tensor.requires_grad for tensor in vars(result).values())
        return {name: tensor.item() for name, tensor in vars(result).items()}

    def now(self):
        """(a, b), (c, d) as the step left them."""
        return [(layer.weight.item(), layer.bias.item()) for layer in self.layers]

    def expected(self, fakes, g_before, g_after, d_before, d_after):
        """What D says in both halves, and what that costs, by networks before and after their updates."""
        z = NOISE[:fakes]

        def judged(images, d):
            x = d[0] * images + d[1]
            return x if self.loss == "bce_with_logits" else sigmoid(x)

        def mean(outputs):
            return (sigmoid(outputs) if self.loss == "bce_with_logits" else outputs).mean()

        cost = ORACLES[self.loss]
        real, first = judged(REAL, d_before), judged(g_before[0] * z + g_before[1], d_before)
        second = judged(g_after[0] * z + g_after[1], d_after)
        return {
            "real and first": cost(real, 1) + cost(first, 0), "first as real": cost(first, 1),
            "second as real": cost(second, 1),
            "d_x": mean(real), "d_g_z1": mean(first), "d_g_z2": mean(second),
        }  # fmt: skip


@ALL
@pytest.mark.parametrize("rule", ["fresh_noise", "same_fakes"])
def test_the_scalars_of_d_then_g(loss, rule):
    """loss_g and d_g_z2 are of the updated D, on G as it was; loss_d is the sum of both means, not halved."""
    affine = Affine(loss, lr=0.3)
    found = affine.step(rule)
    _, d_after = affine.now()
    fakes = len(NOISE) if rule == "fresh_noise" else len(REAL)
    expected = affine.expected(fakes, affine.g, affine.g, affine.d, d_after)
    assert abs(d_after[0] - affine.d[0]) > 0.1
    assert found == pytest.approx(
        {
            "loss_d": expected["real and first"], "loss_g": expected["second as real"],
            "d_x": expected["d_x"], "d_g_z1": expected["d_g_z1"], "d_g_z2": expected["d_g_z2"],
        },
        rel=1e-5,
    )  # fmt: skip


@ALL
def test_the_scalars_of_g_then_d(loss):
    """Both losses are of before the updates; d_g_z2 is what D says of the new G's images."""
    affine = Affine(loss, lr=0.3)
    found = affine.step("generator_first")
    g_after, _ = affine.now()
    expected = affine.expected(len(REAL), affine.g, g_after, affine.d, affine.d)
    assert abs(g_after[0] - affine.g[0]) > 0.1
    assert found == pytest.approx(
        {
            "loss_d": expected["real and first"], "loss_g": expected["first as real"],
            "d_x": expected["d_x"], "d_g_z1": expected["d_g_z1"], "d_g_z2": expected["d_g_z2"],
        },
        rel=1e-5,
    )  # fmt: skip


@ALL
@pytest.mark.parametrize("rule", ["fresh_noise", "same_fakes", "generator_first"])
def test_both_players_go_down_their_own_loss(loss, rule):
    """Adam's first step is lr long, whatever the gradient: its signs alone are left, and must be right."""
    affine = Affine(loss, lr=1e-3)
    affine.step(rule)
    moved = [
        np.subtract(after, before) for after, before in zip(affine.now(), (affine.g, affine.d), strict=True)
    ]
    assert [np.abs(m) for m in moved] == [pytest.approx([1e-3, 1e-3], rel=1e-3)] * 2
    fakes = NOISE if rule == "fresh_noise" else NOISE[: len(REAL)]
    to_outputs = (lambda x: x) if loss == "bce_with_logits" else sigmoid

    def loss_d(c, d):
        fake = affine.g[0] * fakes + affine.g[1]
        return sum(
            ORACLES[loss](to_outputs(c * images + d), label) for images, label in ((REAL, 1), (fake, 0))
        )

    def loss_g(a, b):
        return ORACLES[loss](to_outputs(affine.d[0] * (a * fakes + b) + affine.d[1]), 1)

    for function, at, way in ((loss_g, affine.g, moved[0]), (loss_d, affine.d, moved[1])):
        for i in range(2):
            nudged = list(at)
            nudged[i] += way[i]
            assert function(*nudged) < function(*at)


@pytest.mark.parametrize(
    ("loss", "costs"), [("bce_with_logits", 40.0), ("bce", 100.0), ("bce_epsilon", 27.631021)]
)
def test_a_discriminator_that_is_wrong_and_sure_of_it_costs_what_the_loss_says(loss, costs):
    affine = Affine(loss, lr=1e-6)
    nn.init.constant_(affine.layers[1].weight, 0.0)
    nn.init.constant_(affine.layers[1].bias, 40.0)  # everything is real, it says
    found = affine.step("same_fakes")
    assert (found["d_x"], found["d_g_z1"], found["d_g_z2"]) == (1.0, 1.0, 1.0)
    assert found["loss_d"] == pytest.approx(costs, rel=1e-6)
    assert found["loss_g"] == pytest.approx(0.0, abs=1e-6)
