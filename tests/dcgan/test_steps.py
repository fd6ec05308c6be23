"""What a step does to whom: the generator really learns, and each half moves its own player alone."""

import numpy as np
import pytest

import minigrad as mg
import minigrad.functional as F
from dcgan import latent, models, presets, steps
from dcgan.recipe import layers
from minigrad import nn, optim

TINY = {
    "z_shape": (5,),
    "batch_size": 6,
    "generator": (
        layers.Dense(3 * 49, bias=False), layers.BatchNorm(), layers.ReLU(), layers.Reshape(3, 7, 7),
        layers.ConvTranspose(4, 5, 1, 2, bias=False), layers.BatchNorm(), layers.ReLU(),
        layers.ConvTranspose(2, 4, 2, 1, bias=False), layers.BatchNorm(), layers.ReLU(),
        layers.ConvTranspose(1, 4, 2, 1, bias=False), layers.Tanh(),
    ),
    "discriminator": (
        layers.Conv(3, 4, 2, 1), layers.LeakyReLU(0.2), layers.Dropout(0.3),
        layers.Conv(4, 4, 2, 1), layers.LeakyReLU(0.2), layers.Dropout(0.3),
        layers.Flatten(), layers.Dense(1),
    ),
}  # fmt: skip
RULES = pytest.mark.parametrize("rule", ["fresh_noise", "same_fakes"])


class Watched:
    """A tiny run of a rule that writes down who ran, in which mode, and who was updated."""

    def __init__(self, rule):
        mg.manual_seed(0)
        self.preset = presets.get("flux", step=rule, **TINY)
        self.rule = steps.RULES[rule]
        self.generator, self.discriminator = models.build(self.preset)
        self.events = []
        stream = mg.Generator(0, 1)
        self.gan = steps.Gan.of(
            self.preset, self.generator, self.discriminator, lambda n: latent.draw(self.preset, n, stream)
        )
        self._watch("G", self.generator)
        self._watch("D", self.discriminator)
        for name, optimizer in (("G", self.gan.optimizer_g), ("D", self.gan.optimizer_d)):
            self._watch_updates(name, optimizer)

    def _watch(self, name, network):
        forward = network.forward

        def watched(x):
            self.events.append((name, len(x), "train" if network.training else "eval", mg.is_grad_enabled()))
            return forward(x)

        network.forward = watched

    def _watch_updates(self, name, optimizer):
        step = optimizer.step

        def watched():
            before = self.parameters()
            step()
            moved = {k for k, v in self.parameters().items() if not np.array_equal(v, before[k])}
            self.events.append((f"update {name}", moved))

        optimizer.step = watched

    def parameters(self):
        named = {"G": self.generator, "D": self.discriminator}
        return {f"{k}.{n}": p.numpy().copy() for k, net in named.items() for n, p in net.named_parameters()}

    def step(self, count=6):
        real = np.random.default_rng(1).uniform(-1, 1, (count, 1, 28, 28)).astype(np.float32)
        self.events.clear()
        return self.rule(self.gan, mg.tensor(real))


@RULES
def test_every_parameter_moves_and_no_half_moves_the_other(rule):
    watched = Watched(rule)
    start = watched.parameters()
    for _ in range(3):
        watched.step()
        updates = {
            name: moved for name, *rest in watched.events if name.startswith("update") for moved in rest
        }
        assert {k[0] for k in updates["update D"]} == {"D"}
        assert {k[0] for k in updates["update G"]} == {"G"}
    end = watched.parameters()
    assert [k for k in start if np.array_equal(start[k], end[k])] == []


def test_fluxs_step_runs_g_twice_and_for_d_in_eval_mode_without_a_graph():
    watched = Watched("fresh_noise")
    watched.step(count=4)  # the last, partial batch: as many fakes as ever
    kinds = [event if not event[0].startswith("update") else event[0] for event in watched.events]
    assert kinds == [
        ("G", 6, "eval", False),
        ("D", 4 + 6, "train", True),
        "update D",
        ("G", 6, "train", True),
        ("D", 6, "train", True),
        "update G",
    ]


def test_the_other_step_runs_g_once():
    watched = Watched("same_fakes")
    watched.step(count=4)
    kinds = [event if not event[0].startswith("update") else event[0] for event in watched.events]
    assert kinds == [
        ("G", 4, "train", True),
        ("D", 4 + 4, "train", True),
        "update D",
        ("D", 4, "train", True),
        "update G",
    ]


def test_ds_fakes_leave_gs_running_statistics_alone_in_flux():
    watched = Watched("fresh_noise")
    before = {k: b.numpy().copy() for k, b in watched.generator.named_buffers()}
    draw, seen = watched.gan.noise, []

    def noise_and_look(n):
        moved = any(not np.array_equal(before[k], b.numpy()) for k, b in watched.generator.named_buffers())
        seen.append(moved)
        return draw(n)

    watched.gan.noise = noise_and_look
    watched.step()
    assert seen == [False, False]  # still as before when G's own half draws its z
    assert any(not np.array_equal(before[k], b.numpy()) for k, b in watched.generator.named_buffers())


@RULES
def test_the_losses_are_those_of_the_definitions(rule):
    watched = Watched(rule)
    for module in (watched.discriminator[2], watched.discriminator[5]):
        module.p = 0.0  # so that D can be asked again
    state = {"G": watched.generator.state_dict(), "D": watched.discriminator.state_dict()}
    result = watched.step()
    after = watched.discriminator.state_dict()

    again = Watched(rule)
    for module in (again.discriminator[2], again.discriminator[5]):
        module.p = 0.0
    again.generator.load_state_dict(state["G"])
    again.discriminator.load_state_dict(state["D"])
    real = mg.tensor(np.random.default_rng(1).uniform(-1, 1, (6, 1, 28, 28)).astype(np.float32))
    first, second = (again.gan.noise(6) for _ in range(2))
    if rule == "fresh_noise":
        again.generator.eval()
    fake = again.generator(first)
    p_real, p_fake = (F.sigmoid(again.discriminator(x)).numpy() for x in (real, fake))
    assert result.loss_d.item() == pytest.approx(-np.log(p_real).mean() - np.log(1 - p_fake).mean(), rel=1e-5)
    assert result.d_x.item() == pytest.approx(p_real.mean(), rel=1e-5)
    assert result.d_g_z1.item() == pytest.approx(p_fake.mean(), rel=1e-5)
    if rule == "fresh_noise":
        again.generator.train()
        fake = again.generator(second)
    again.discriminator.load_state_dict(after)
    judged = F.sigmoid(again.discriminator(fake)).numpy()
    assert result.loss_g.item() == pytest.approx(-np.log(judged).mean(), rel=1e-5)
    assert result.d_g_z2.item() == pytest.approx(judged.mean(), rel=1e-5)


@RULES
def test_no_gradient_is_computed_that_nobody_uses(rule):
    watched = Watched(rule)
    watched.step()
    d_grads = {k: p.grad.numpy().copy() for k, p in watched.discriminator.named_parameters()}
    assert all(g is not None for g in d_grads.values())
    # G's half came last and went through D: D's gradients are still those of its own half.
    watched.gan.optimizer_d.zero_grad()
    judged = watched.discriminator(watched.generator(watched.gan.noise(6)))
    judged.sum().backward(inputs=watched.gan.optimizer_g.params)
    assert all(p.grad is None for p in watched.discriminator.parameters())


class Mean(nn.Module):
    """A layer of somebody's own, of which nothing is known: it does mix the images of a batch."""

    def forward(self, x):
        return x - x.mean(axis=0, keepdims=True)


def conv_net(*between):
    mg.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 4, 4, 2, 1), nn.LeakyReLU(0.2), *between, nn.Flatten(), nn.Dense(4 * 49, 1)
    )  # fmt: skip


class Doubled(nn.Conv2d):
    """A subclass may do anything."""


@pytest.mark.parametrize(
    ("between", "alone"),
    [
        ((), True),
        ((nn.Dropout(0.3), nn.Sequential(nn.Reshape(4, 7, 7), nn.Tanh())), True),
        ((nn.ConvTranspose2d(4, 4, 1), nn.ReLU(), nn.Sigmoid()), True),
        ((nn.BatchNorm(4),), False),
        ((nn.Sequential(nn.ReLU(), nn.BatchNorm(4)),), False),
        ((Mean(),), False),
        ((Doubled(4, 4, 1),), False),
    ],
)
def test_a_discriminator_sees_both_kinds_at_once_only_where_it_judges_image_by_image(between, alone):
    network = conv_net(*between)
    assert steps.judges_image_by_image(network) == alone
    real, fake = images(3, 1), images(5, 2)
    gan = steps.Gan(
        network, network, optim.Adam(network.parameters()), optim.Adam(network.parameters()), images, 4
    )
    seen, forward = [], network.forward
    network.forward = lambda x: [seen.append(len(x)), forward(x)][1]
    steps.update_discriminator(gan, real, fake)
    assert seen == ([8] if alone else [3, 5])


def images(count, seed):
    return mg.tensor(np.random.default_rng(seed).uniform(-1, 1, (count, 1, 14, 14)).astype(np.float32))


class Fixed(nn.Dropout):
    """Drops the same units of every image, so that one can ask again."""

    def forward(self, x):
        return x * mg.tensor(np.arange(x.shape[2]) % 2 * 2.0, "float32")


@pytest.mark.parametrize("between", [(), (nn.Conv2d(4, 4, 3, 1, 1), nn.ReLU()), (Fixed(0.5),)])
def test_one_pass_of_both_kinds_has_the_gradients_and_the_losses_of_two(monkeypatch, between):
    monkeypatch.setattr(steps, "IMAGE_BY_IMAGE", (*steps.IMAGE_BY_IMAGE, Fixed))
    network = conv_net(*between)
    real, fake = images(3, 1), images(6, 2)
    gan = steps.Gan(
        network, network, optim.Adam(network.parameters()), optim.Adam(network.parameters(), 0.0), images, 4
    )
    cost_real, cost_fake, on_real, on_fake = steps.update_discriminator(gan, real, fake)
    found = {name: p.grad.numpy() for name, p in network.named_parameters()}
    wanted_real, wanted_fake = network(real), network(fake)
    np.testing.assert_allclose(on_real.numpy(), wanted_real.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(on_fake.numpy(), wanted_fake.numpy(), rtol=1e-5, atol=1e-6)
    wanted = (1 + (-wanted_real).exp()).log().mean(), (1 + wanted_fake.exp()).log().mean()
    assert cost_real.item() == pytest.approx(wanted[0].item(), rel=1e-5)
    assert cost_fake.item() == pytest.approx(wanted[1].item(), rel=1e-5)
    network.zero_grad()
    sum(wanted).backward()
    for name, p in network.named_parameters():
        np.testing.assert_allclose(found[name], p.grad.numpy(), rtol=1e-4, atol=1e-6, err_msg=name)
