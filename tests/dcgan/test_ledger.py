"""What one step of each recipe does: the sequence of events, written out from the documents, and in words."""

import re

import numpy as np
import pytest

import minigrad as mg
from dcgan import models, presets, steps, train
from dcgan.describe import ledger
from dcgan.describe.ledger import Cost, Differentiated, Drawn, Ran, Updated
from dcgan.describe.step import WIDTH, explain
from dcgan.describe.step import _of_run as told
from dcgan.presets import PRESETS
from dcgan.steps import step_result, update_discriminator, update_generator
from minigrad import nn

NAMES = pytest.mark.parametrize("name", PRESETS)
N = 4  # images in the watched batch
TINY = {"image_size": 16, "channels": 1, "nz": 3, "ngf": 2, "ndf": 2}
PLAIN = TINY | {"image_size": 8}  # a D of two convolutions, without BatchNorm

# What each network learns, by the places of its layers; a BatchNorm has a weight and a bias.
KEYS = {
    "flux": (
        "0.weight 1.weight 1.bias 4.weight 5.weight 5.bias 7.weight 8.weight 8.bias 10.weight",
        "0.weight 0.bias 3.weight 3.bias 7.weight 7.bias",
    ),
    "flux-draft": (
        "0.weight 1.weight 1.bias 4.weight 4.bias 5.weight 5.bias 7.weight 7.bias 8.weight 8.bias "
        "10.weight 10.bias",
        "0.weight 0.bias 3.weight 3.bias 7.weight 7.bias",
    ),
    "tensorflow": (
        "0.weight 1.weight 1.bias 3.weight 4.weight 4.bias 6.weight 6.bias",
        "0.weight 1.weight 1.bias 3.weight 4.weight 4.bias 6.weight 6.bias",
    ),
    "tensorflow-baseline": ("0.weight 0.bias 2.weight 2.bias", "1.weight 1.bias 3.weight 3.bias"),
    "flowers": (
        "0.weight 1.weight 1.bias 3.weight 4.weight 4.bias 6.weight 7.weight 7.bias 9.weight 10.weight "
        "10.bias 12.weight",
        "0.weight 2.weight 3.weight 3.bias 5.weight 6.weight 6.bias 8.weight",
    ),
    "pytorch": (
        "0.weight 1.weight 1.bias 3.weight 4.weight 4.bias 6.weight 7.weight 7.bias 9.weight 10.weight "
        "10.bias 12.weight",
        "0.weight 2.weight 3.weight 3.bias 5.weight 6.weight 6.bias 8.weight 9.weight 9.bias 11.weight",
    ),
}
NORMS = {  # the places of the BatchNorms in G and in D
    "flux": ((1, 5, 8), ()),
    "flux-draft": ((1, 5, 8), ()),
    "tensorflow": ((1, 4), (1, 4)),
    "tensorflow-baseline": ((), ()),
    "flowers": ((1, 4, 7, 10), (3, 6)),
    "pytorch": ((1, 4, 7, 10), (3, 6, 9)),
}
# A bias before a BatchNorm has no gradient but rounding: whether it moves says nothing.
IDLE = {"flux-draft": {"4.bias", "7.bias"}}


class Recipe:
    """The words of one recipe's ledger."""

    def __init__(self, name):
        if name == "quick":  # ours: its layers are no document's, only its step is
            keys, norms = of_quick()
        else:
            keys, norms = [k.split() for k in KEYS[name]], NORMS[name]
        self.keys = dict(zip("GD", keys, strict=True))
        self.norms = dict(zip("GD", norms, strict=True))
        self.dropout = name.startswith("flux")
        self.idle = IDLE.get(name, set())

    def ran(self, network, on, gave, count=N, *, statistics="batch", graph=True, through=False):
        player = network[0]
        norms = self.norms[player]
        moved = norms if statistics == "batch" else ()
        buffers = tuple(f"{i}.running_{kind}" for i in moved for kind in ("mean", "var"))
        drops = player == "D" and self.dropout
        return Ran(
            network, on, gave, count, statistics if norms else "none", drops, graph, through, buffers
        )  # fmt: skip

    def differentiated(self, network, *costs, added=False):
        return Differentiated(network, costs, tuple(self.keys[network]), added)

    def updated(self, network):
        return Updated(
            network, tuple(f"{network}.{key}" for key in self.keys[network] if key not in self.idle)
        )

    def without_idle(self, events):
        """The events of a watch, less what says nothing."""
        return [
            Updated(e.network, tuple(k for k in e.moved if k[2:] not in self.idle))
            if isinstance(e, Updated)
            else e
            for e in events
        ]


def of_quick():
    networks = models.build(presets.get("quick"))
    keys = [[key for key, _ in network.named_parameters()] for network in networks]
    buffers = [[key.split(".") for key, _ in network.named_buffers()] for network in networks]
    return keys, [tuple(int(place) for place, kind in b if kind == "running_mean") for b in buffers]


def fluxs_step(recipe):
    """D on a fresh z, its fakes from G in eval mode; then G on a forward pass of its own with a fresh z.

    This D has no BatchNorm: it sees real and fake images in one pass.
    """
    return [
        Drawn("z1", N),
        recipe.ran("G", "z1", "G(z1)", statistics="running", graph=False),
        recipe.ran("D", "x and G(z1)", "D(x) and D(G(z1))", 2 * N),
        Cost("D(x)", 1.0, True),
        Cost("D(G(z1))", 0.0, True),
        recipe.differentiated("D", ("D(x)", 1.0), ("D(G(z1))", 0.0)),
        recipe.updated("D"),
        Drawn("z2", N),
        recipe.ran("G", "z2", "G(z2)"),
        recipe.ran("D'", "G(z2)", "D'(G(z2))", through=True),
        Cost("D'(G(z2))", 1.0, True),
        recipe.differentiated("G", ("D'(G(z2))", 1.0)),
        recipe.updated("G"),
    ]


def pytorchs_step(recipe):
    """One fake batch: detached for D, two backward passes and one update; then through the updated D."""
    return [
        Drawn("z1", N),
        recipe.ran("G", "z1", "G(z1)"),
        recipe.ran("D", "x", "D(x)"),
        Cost("D(x)", 1.0, True),
        recipe.differentiated("D", ("D(x)", 1.0)),
        recipe.ran("D", "G(z1)", "D(G(z1))"),
        Cost("D(G(z1))", 0.0, True),
        recipe.differentiated("D", ("D(G(z1))", 0.0), added=True),
        recipe.updated("D"),
        recipe.ran("D'", "G(z1)", "D'(G(z1))", through=True),
        Cost("D'(G(z1))", 1.0, True),
        recipe.differentiated("G", ("D'(G(z1))", 1.0)),
        recipe.updated("G"),
    ]


def tensorflows_step(recipe):
    """G is updated; then D on the same z, its fakes made again by the new G. D's loss before both updates is
    that of the real images, for which D has not moved, and of the first fakes, which is only written down.
    """
    together = not recipe.norms["D"]  # tensorflow-baseline's
    return [
        Drawn("z1", N),
        recipe.ran("G", "z1", "G(z1)"),
        recipe.ran("D", "G(z1)", "D(G(z1))", through=True),
        Cost("D(G(z1))", 1.0, True),
        recipe.differentiated("G", ("D(G(z1))", 1.0)),
        recipe.updated("G"),
        Cost("D(G(z1))", 0.0, False),
        recipe.ran("G'", "z1", "G'(z1)", graph=False),
        *(
            [
                recipe.ran("D", "x and G'(z1)", "D(x) and D(G'(z1))", 2 * N),
                Cost("D(x)", 1.0, True),
                Cost("D(G'(z1))", 0.0, True),
                recipe.differentiated("D", ("D(x)", 1.0), ("D(G'(z1))", 0.0)),
            ]
            if together
            else [
                recipe.ran("D", "x", "D(x)"),
                Cost("D(x)", 1.0, True),
                recipe.differentiated("D", ("D(x)", 1.0)),
                recipe.ran("D", "G'(z1)", "D(G'(z1))"),
                Cost("D(G'(z1))", 0.0, True),
                recipe.differentiated("D", ("D(G'(z1))", 0.0), added=True),
            ]
        ),
        recipe.updated("D"),
    ]


STEPS = {
    "flux": fluxs_step,
    "flux-draft": fluxs_step,
    "tensorflow": tensorflows_step,
    "tensorflow-baseline": tensorflows_step,
    "flowers": pytorchs_step,
    "pytorch": pytorchs_step,
    "quick": pytorchs_step,
}


@NAMES
def test_a_step_is_what_the_document_says(name):
    recipe = Recipe(name)
    assert recipe.without_idle(ledger.watch(presets.get(name), N)) == STEPS[name](recipe)


@pytest.mark.parametrize(
    ("step", "of_g", "of_d"),
    [
        ("fresh_noise", ["z1", "z2"], ["x", "G(z1)", "G(z2)"]),
        ("same_fakes", ["z1"], ["x", "G(z1)", "G(z1)"]),
        ("generator_first", ["z1", "z1"], ["G(z1)", "x", "G'(z1)"]),
    ],
)
def test_how_often_each_network_runs_and_on_what(step, of_g, of_d):
    events = ledger.watch(presets.get("flowers", **TINY, step=step), N)
    found = [
        [e.on for e in events if isinstance(e, Ran) and e.network.strip("'") == letter] for letter in "GD"
    ]
    assert found == [of_g, of_d]


@pytest.mark.parametrize(
    ("step", "of_d"),
    [
        ("fresh_noise", ["x and G(z1)", "G(z2)"]),
        ("same_fakes", ["x and G(z1)", "G(z1)"]),
        ("generator_first", ["G(z1)", "x and G'(z1)"]),
    ],
)
def test_a_discriminator_without_batch_norm_sees_both_kinds_at_once(step, of_d):
    events = ledger.watch(presets.get("flowers", **PLAIN, step=step), N)
    ran = [e for e in events if isinstance(e, Ran) and e.network.startswith("D")]
    assert [e.on for e in ran] == of_d
    assert [e.count for e in ran] == [2 * N if " and " in on else N for on in of_d]
    assert [e.through for e in ran] == [on in ("G(z1)", "G(z2)") for on in of_d]
    learned = [e for e in events if isinstance(e, Differentiated) and e.network == "D"]
    of_fakes = "D(G'(z1))" if step == "generator_first" else "D(G(z1))"
    assert {name for e in learned for name, _ in e.costs} == {"D(x)", of_fakes}
    assert [e.added for e in learned] == [False]


@pytest.mark.parametrize(
    ("step", "drawn"), [("fresh_noise", [6, 6]), ("same_fakes", [4]), ("generator_first", [4])]
)
def test_flux_alone_makes_as_many_fakes_as_ever_on_a_partial_batch(step, drawn):
    preset = presets.get("flowers", batch_size=6, **TINY)
    generator, discriminator = models.build(preset)
    counts = []

    def draw(count):
        counts.append(count)
        return mg.tensor(mg.Generator(0).normal((count, 3, 1, 1)))

    gan = steps.Gan.of(preset, generator, discriminator, draw)
    steps.RULES[step](gan, mg.tensor(mg.Generator(0).uniform((4, 1, 16, 16), -1.0, 1.0)))
    assert counts == drawn


# -- the ledger is observed ----------------------------------------------------------------------------


def in_the_other_order(gan, real):
    """G first, on the same fakes."""
    fake = gan.generator(gan.noise(len(real)))
    loss_g, judged = update_generator(gan, fake)
    *costs, on_real, on_fake = update_discriminator(gan, real, fake.detach())
    return step_result(gan, sum(costs), loss_g, on_real, on_fake, judged)


def without_detach(gan, real):
    fake = gan.generator(gan.noise(len(real)))
    gan.optimizer_d.zero_grad()
    for images, label in ((real, 1.0), (fake, 0.0)):
        loss = gan.loss.cost(gan.discriminator(images), label)
        loss.backward(inputs=gan.optimizer_d.params, retain_graph=True)
    gan.optimizer_d.step()
    return update_generator(gan, fake)


def with_gradients_for_all(gan, real):
    """As `same_fakes`, but G's loss gives gradients to D as well."""
    fake = gan.generator(gan.noise(len(real)))
    update_discriminator(gan, real, fake.detach())
    gan.loss.cost(gan.discriminator(fake), 1.0).backward()
    gan.optimizer_g.step()


def with_swapped_labels(gan, real):
    fake = gan.generator(gan.noise(len(real)))
    update_discriminator(gan, fake.detach(), real)
    return update_generator(gan, fake)


def in_one_backward_pass(gan, real):
    fake = gan.generator(gan.noise(len(real)))
    gan.optimizer_d.zero_grad()
    on_real, on_fake = gan.discriminator(real), gan.discriminator(fake.detach())
    (gan.loss.cost(on_real, 1.0) + gan.loss.cost(on_fake, 0.0)).backward(inputs=gan.optimizer_d.params)
    gan.optimizer_d.step()
    return update_generator(gan, fake)


def with_one_generator_forgotten(gan, real):
    """As the published Flux text: no gradient reaches G."""
    with mg.no_grad():
        fake = gan.generator(gan.noise(len(real)))
    update_discriminator(gan, real, fake)
    gan.loss.cost(gan.discriminator(fake), 1.0).backward()
    gan.optimizer_g.step()


def watched(monkeypatch, rule, **overrides):
    """The events of a tiny recipe whose rule is replaced by a function, and those of the true one."""
    preset = presets.get("flowers", **(TINY | overrides))
    right = ledger.watch(preset, N)
    monkeypatch.setitem(steps.RULES, preset.step, rule)
    return ledger.watch(preset, N), right


def kinds(events):
    """What happens, in short: "z1", "G(z1)", "cost D(x) 1", "backward D", "update D"."""
    short = {
        Drawn: lambda e: e.z,
        Ran: lambda e: e.gave,
        Cost: lambda e: f"cost {e.judged} {e.label:.0f}",
        Differentiated: lambda e: f"backward {e.network}",
        Updated: lambda e: f"update {e.network}",
    }
    return [short[type(e)](e) for e in events]


def test_the_ledger_sees_the_other_order(monkeypatch):
    wrong, right = watched(monkeypatch, in_the_other_order)
    assert [k for k in kinds(right) if k.startswith("update")] == ["update D", "update G"]
    assert kinds(wrong) == [
        "z1", "G(z1)", "D(G(z1))", "cost D(G(z1)) 1", "backward G", "update G",
        "D(x)", "cost D(x) 1", "backward D", "D(G(z1))", "cost D(G(z1)) 0", "backward D", "update D",
    ]  # fmt: skip


def test_the_ledger_sees_a_forgotten_detach(monkeypatch):
    wrong, right = watched(monkeypatch, without_detach)
    assert kinds(wrong) == kinds(right)
    changed = [(a, b) for a, b in zip(wrong, right, strict=True) if a != b]
    assert [(a.gave, a.through, b.through) for a, b in changed] == [("D(G(z1))", True, False)]


def test_the_ledger_sees_gradients_that_nobody_asked_for(monkeypatch):
    wrong, right = watched(monkeypatch, with_gradients_for_all)
    assert kinds(wrong) == [*kinds(right)[:-1], "backward D", "update G"]
    stray = wrong[-2]
    assert (stray.network, stray.added) == ("D", True)
    assert stray.costs == (("D'(G(z1))", 1.0),)


def test_the_ledger_sees_labels_that_are_swapped(monkeypatch):
    wrong, right = watched(monkeypatch, with_swapped_labels)
    assert {(e.judged, e.label) for e in right if isinstance(e, Cost)} == {
        ("D(x)", 1.0), ("D(G(z1))", 0.0), ("D'(G(z1))", 1.0)
    }  # fmt: skip
    assert {(e.judged, e.label) for e in wrong if isinstance(e, Cost)} == {
        ("D(x)", 0.0), ("D(G(z1))", 1.0), ("D'(G(z1))", 1.0)
    }  # fmt: skip


def test_the_ledger_sees_one_backward_pass_of_both(monkeypatch):
    wrong, _ = watched(monkeypatch, in_one_backward_pass)
    of_d = [e for e in wrong if isinstance(e, Differentiated) and e.network == "D"]
    assert [(e.costs, e.added) for e in of_d] == [((("D(x)", 1.0), ("D(G(z1))", 0.0)), False)]


def test_the_ledger_sees_that_no_gradient_reaches_g(monkeypatch):
    wrong, right = watched(monkeypatch, with_one_generator_forgotten)
    assert right[-1].moved
    assert wrong[-1] == Updated("G", ())
    assert not any(isinstance(e, Differentiated) and e.network == "G" for e in wrong)


def test_the_ledger_sees_g_in_the_wrong_mode(monkeypatch):
    def in_train_mode(gan, real):
        gan.generator.eval = lambda: gan.generator
        return steps.fresh_noise(gan, real)

    wrong, right = watched(monkeypatch, in_train_mode, step="fresh_noise")
    changed = [(a, b) for a, b in zip(wrong, right, strict=True) if a != b]
    assert [(a.gave, a.statistics, b.statistics) for a, b in changed] == [("G(z1)", "batch", "running")]
    assert changed[0][0].buffers == tuple(
        f"{i}.running_{kind}" for i in (1, 4, 7) for kind in ("mean", "var")
    )
    assert changed[0][1].buffers == ()


def test_the_ledger_sees_noise_that_is_used_again(monkeypatch):
    def with_one_noise(gan, real):
        z = gan.noise(len(real))
        gan.noise = lambda n: z
        return steps.fresh_noise(gan, real)

    wrong, right = watched(monkeypatch, with_one_noise, step="fresh_noise")
    assert [e.z for e in right if isinstance(e, Drawn)] == ["z1", "z2"]
    assert [e.z for e in wrong if isinstance(e, Drawn)] == ["z1"]
    assert [e.on for e in wrong if isinstance(e, Ran) and e.network == "G"] == ["z1", "z1"]


def test_the_ledger_tells_apart_what_is_judged_alike(monkeypatch):
    """Of a D that says the same of all images nobody knows by its numbers which of them it saw."""
    build = models.build

    def speechless(preset):
        generator, discriminator = build(preset)
        for parameter in discriminator.parameters():
            parameter.data = parameter.numpy() * 0
        return generator, discriminator

    monkeypatch.setattr(models, "build", speechless)
    events = ledger.watch(presets.get("flowers", **PLAIN), N)
    assert [e.judged for e in events if isinstance(e, Cost)] == ["D(x)", "D(G(z1))", "D'(G(z1))"]


def test_numbers_that_are_none_have_names_too(monkeypatch):
    rule = steps.RULES["same_fakes"]

    def broken(gan, real):
        for parameter in gan.generator.parameters():
            parameter.data = parameter.numpy() * np.nan
        return rule(gan, real)

    with np.errstate(all="ignore"):
        wrong, right = watched(monkeypatch, broken, image_size=8)  # D sees both kinds at once
        assert [e.gave for e in wrong if isinstance(e, Ran)] == [e.gave for e in right if isinstance(e, Ran)]


def test_a_part_and_the_whole_of_what_d_said_have_names_of_their_own(monkeypatch):
    def of_all(gan, real):
        fake = gan.generator(gan.noise(len(real)))
        judged = gan.discriminator(mg.concatenate([real, fake.detach()]))
        gan.loss.cost(judged, 0.0)
        gan.loss.cost(judged[: len(real)], 1.0)

    wrong, _ = watched(monkeypatch, of_all, image_size=8)
    assert [e.judged for e in wrong if isinstance(e, Cost)] == ["D(x) and D(G(z1))", "D(x)"]


def test_fakes_that_are_not_cut_off_are_told_where_d_sees_both_kinds_at_once(monkeypatch):
    def not_detached(gan, real):
        fake = gan.generator(gan.noise(len(real)))
        update_discriminator(gan, real, fake)

    preset = presets.get("flowers", **PLAIN)
    assert "the fakes are cut off from G's" in " ".join(explain(preset).split())
    monkeypatch.setitem(steps.RULES, "same_fakes", not_detached)
    events = ledger.watch(preset, N)
    (both,) = (e for e in events if isinstance(e, Ran) and e.on == "x and G(z1)")
    assert both.through
    assert "; the graph leads through D into G." in told(both)


def test_the_step_is_watched_on_the_cpu_whatever_the_default(monkeypatch):
    """Where its numbers have places in memory that stay."""
    asked = []
    monkeypatch.setattr(nn.Module, "to", lambda self, device: asked.append(device) or self)
    ledger.watch(presets.get("flowers", **PLAIN), N)
    assert asked == ["cpu", "cpu"]


def test_what_neither_player_made_has_no_name(monkeypatch):
    def with_a_stranger(gan, real):
        gan.discriminator(real + 1)

    with pytest.raises(KeyError, match="neither player made"):
        watched(monkeypatch, with_a_stranger)


def test_the_ledger_sees_a_discriminator_without_dropout(monkeypatch):
    def without_dropout(gan, real):
        gan.discriminator.eval()
        return steps.fresh_noise(gan, real)

    preset = presets.get("flux")
    monkeypatch.setitem(steps.RULES, "fresh_noise", without_dropout)
    assert {e.dropout for e in ledger.watch(preset, 2) if isinstance(e, Ran)} == {False}


@pytest.mark.parametrize("count", [2, 7])
def test_every_half_is_of_the_whole_batch(count):
    for step in steps.RULES:
        events = ledger.watch(presets.get("flowers", **TINY, step=step), count)
        assert {e.count for e in events if isinstance(e, Drawn | Ran)} == {count}


# -- in words --------------------------------------------------------------------------------------------

FLUX_STEP = [
    "First half: the discriminator learns",
    "1. z1 is drawn: 128 times 100 numbers from N(0, 1).",
    "2. G runs on z1 and makes the images G(z1); BatchNorm uses its running statistics (eval mode); "
    "no graph is kept: no gradient can reach G from here.",
    "3. D runs on x and G(z1) at once and says D(x) and D(G(z1)); there is no BatchNorm in it, Dropout "
    "drops; the graph reaches D's parameters, and the fakes are cut off from G's.",
    "4. The loss of D(x) against 1 is taken.",
    "5. The loss of D(G(z1)) against 0 is taken.",
    "6. Backward from D(x) against 1 and D(G(z1)) against 0: gradients of D's 6 parameter tensors are "
    "made, and none of G's.",
    "7. Adam moves D's 6 parameter tensors, and nothing else.",
    "Second half: the generator learns",
    "8. z2 is drawn: 128 times 100 numbers from N(0, 1).",
    "9. G runs on z2 and makes the images G(z2); BatchNorm uses this batch's own statistics; the graph is "
    "kept.",
    "10. D' runs on G(z2) and says D'(G(z2)); there is no BatchNorm in it, Dropout drops; the graph leads "
    "through D into G.",
    "11. The loss of D'(G(z2)) against 1 is taken.",
    "12. Backward from D'(G(z2)) against 1: gradients of G's {g} parameter tensors are made, and none "
    "of D's.",
    "13. Adam moves G's {g} parameter tensors, and nothing else.",
]
PYTORCH_STEP = [
    "First half: the discriminator learns",
    "1. z1 is drawn: 128 times {z} numbers from N(0, 1).",
    "2. G runs on z1 and makes the images G(z1); BatchNorm uses this batch's own statistics; the graph is "
    "kept.",
    "3. D runs on x and says D(x); BatchNorm uses this batch's own statistics; the graph reaches D's "
    "parameters.",
    "4. The loss of D(x) against 1 is taken.",
    "5. Backward from D(x) against 1: gradients of D's {d} parameter tensors are made, and none of G's.",
    "6. D runs on G(z1) and says D(G(z1)); BatchNorm uses this batch's own statistics; the images are cut "
    "off from G's graph: gradients stop at them.",
    "7. The loss of D(G(z1)) against 0 is taken.",
    "8. Backward from D(G(z1)) against 0: gradients of D's {d} parameter tensors are added to those already "
    "there, and none of G's.",
    "9. Adam moves D's {d} parameter tensors, and nothing else.",
    "Second half: the generator learns",
    "10. D' runs on G(z1) and says D'(G(z1)); BatchNorm uses this batch's own statistics; the graph leads "
    "through D into G.",
    "11. The loss of D'(G(z1)) against 1 is taken.",
    "12. Backward from D'(G(z1)) against 1: gradients of G's {g} parameter tensors are made, and none "
    "of D's.",
    "13. Adam moves G's {g} parameter tensors, and nothing else.",
]
TENSORFLOWS_FIRST_HALF = [
    "First half: the generator learns",
    "1. z1 is drawn: 128 times {z} numbers from U(-1, 1).",
    "2. G runs on z1 and makes the images G(z1); {norm}; the graph is kept.",
    "3. D runs on G(z1) and says D(G(z1)); {norm}; the graph leads through D into G.",
    "4. The loss of D(G(z1)) against 1 is taken.",
    "5. Backward from D(G(z1)) against 1: gradients of G's {g} parameter tensors are made, and none of D's.",
    "6. Adam moves G's {g} parameter tensors, and nothing else.",
    "Second half: the discriminator learns",
    "7. The loss of D(G(z1)) against 0 is only written down.",
    "8. G' runs on z1 and makes the images G'(z1); {norm}; no graph is kept: no gradient can reach G from "
    "here.",
]
TENSORFLOW_STEP = [
    *TENSORFLOWS_FIRST_HALF,
    "9. D runs on x and says D(x); {norm}; the graph reaches D's parameters.",
    "10. The loss of D(x) against 1 is taken.",
    "11. Backward from D(x) against 1: gradients of D's {d} parameter tensors are made, and none of G's.",
    "12. D runs on G'(z1) and says D(G'(z1)); {norm}; the images are cut off from G's graph: gradients stop "
    "at them.",
    "13. The loss of D(G'(z1)) against 0 is taken.",
    "14. Backward from D(G'(z1)) against 0: gradients of D's {d} parameter tensors are added to those "
    "already there, and none of G's.",
    "15. Adam moves D's {d} parameter tensors, and nothing else.",
]
BASELINE_STEP = [
    *TENSORFLOWS_FIRST_HALF,
    "9. D runs on x and G'(z1) at once and says D(x) and D(G'(z1)); {norm}; the graph reaches D's "
    "parameters, and the fakes are cut off from G's.",
    "10. The loss of D(x) against 1 is taken.",
    "11. The loss of D(G'(z1)) against 0 is taken.",
    "12. Backward from D(x) against 1 and D(G'(z1)) against 0: gradients of D's {d} parameter tensors are "
    "made, and none of G's.",
    "13. Adam moves D's {d} parameter tensors, and nothing else.",
]
OWN = "BatchNorm uses this batch's own statistics"
LOGITS = "log(1 + exp(-l)) of the logit l for label 1, log(1 + exp(l)) for label 0"
EPSILON = "-log(p + 1e-12) for label 1, -log(1 - p + 1e-12) for label 0"
CLAMPED = "-log p for label 1, -log(1 - p) for label 0, at most 100"
HEAD = ["half", "G ran on", "D ran on", "parameters moved", "running statistics moved"]
FLUX_TABLE = [HEAD, ["D's", "z1", "x and G(z1)", "D", "-"], ["G's", "z2", "G(z2)", "G", "G"]]
TENSORFLOW_TABLE = [HEAD, ["G's", "z1", "G(z1)", "G", "D G"], ["D's", "z1", "x; G'(z1)", "D", "D G"]]
BASELINE_TABLE = [HEAD, ["G's", "z1", "G(z1)", "G", "-"], ["D's", "z1", "x and G'(z1)", "D", "-"]]
PYTORCH_TABLE = [HEAD, ["D's", "z1", "x; G(z1)", "D", "D G"], ["G's", "-", "G(z1)", "G", "D"]]
SAID = {  # the loss, the sentences, what they are filled with, and the table at the end
    "flux": (LOGITS, FLUX_STEP, {"g": 10}, FLUX_TABLE),
    "flux-draft": (LOGITS, FLUX_STEP, {"g": 13}, FLUX_TABLE),
    "tensorflow": (
        EPSILON, TENSORFLOW_STEP, {"g": 8, "d": 8, "z": "100 x 1 x 1", "norm": OWN}, TENSORFLOW_TABLE,
    ),
    "tensorflow-baseline": (
        EPSILON, BASELINE_STEP, {"g": 4, "d": 4, "z": "100", "norm": "there is no BatchNorm in it"},
        BASELINE_TABLE,
    ),
    "flowers": (CLAMPED, PYTORCH_STEP, {"g": 13, "d": 8, "z": "64 x 1 x 1"}, PYTORCH_TABLE),
    "pytorch": (CLAMPED, PYTORCH_STEP, {"g": 13, "d": 11, "z": "100 x 1 x 1"}, PYTORCH_TABLE),
}  # fmt: skip


def sentences(text):
    """The headings and the numbered sentences, each in one line, without indentation."""
    joined = re.sub(r"\n     (?=\S)", " ", text)
    wanted = (line.strip() for line in joined.splitlines())
    return [line for line in wanted if re.match(r"\d+\. |(First|Second) half: ", line)]


@pytest.mark.parametrize("name", SAID)
def test_the_step_is_told_in_words(name, capsys):
    loss, step, filled, table = SAID[name]
    assert train.main(["--preset", name, "--explain-step"]) == 0
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert max(map(len, lines)) <= 100
    introduction = " ".join(said.partition("\n\n")[0].split())
    assert introduction == (
        f"One step of {name}. x is a batch of 128 real images, G the generator, D the discriminator. The "
        f"loss of D's word is {loss}, averaged over the batch; real is 1, fake is 0. After an update a "
        "network carries a prime: G', D'."
    )
    if name == "flux-draft":  # whether a bias before a BatchNorm moves is chance
        said = re.sub(r"G's 1[123] parameters, and nothing", "G's 13 parameters, and nothing", said)
    assert sentences(said) == [sentence.format(**filled) for sentence in step]
    start = next(i for i, line in enumerate(lines) if line.startswith("half "))
    assert [re.split(" {2,}", line) for line in lines[start : start + 3]] == table


@pytest.mark.parametrize("step", steps.RULES)
def test_the_words_follow_what_is_set(step):
    preset = presets.get(
        "flowers", **TINY, step=step, loss="bce_epsilon", batch_size=7, z_distribution="uniform"
    )
    said = " ".join(explain(preset).split())
    assert "x is a batch of 7 real images" in said
    assert f"The loss of D's word is {EPSILON}" in said
    assert "z1 is drawn: 7 times 3 x 1 x 1 numbers from U(-1, 1)." in said
    assert "gradients of D's 5 parameter tensors" in said  # 16 x 16: three convolutions and a BatchNorm
    first = "the generator" if step == "generator_first" else "the discriminator"
    assert f"First half: {first} learns" in said


def test_the_words_follow_what_happens(monkeypatch):
    preset = presets.get("flowers", **TINY)
    assert " ".join(explain(preset).split()).count("the images are cut off from G's graph") == 1
    monkeypatch.setitem(steps.RULES, "same_fakes", without_detach)
    said = " ".join(explain(preset).split())
    assert "the images are cut off" not in said
    assert said.count("the graph leads through D into G") == 2


@NAMES
def test_no_line_is_wider_than_a_page(name):
    assert WIDTH == 100
    assert max(map(len, explain(presets.get(name)).splitlines())) <= 100


def test_the_explanation_trains_nothing_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert (
        train.main(["--preset", "flowers", *(f"--set={k}={v}" for k, v in TINY.items()), "--explain-step"])
        == 0
    )
    assert capsys.readouterr().out.startswith("One step of flowers.")
    assert list(tmp_path.iterdir()) == []
