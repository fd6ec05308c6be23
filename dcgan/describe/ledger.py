"""The events of one step of a recipe, watched as it happens: forward passes, updates, changes.

The step runs for real on a few random images; nothing here is declared, so the ledger can't differ from
the step. step.py puts it in words.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import minigrad as mg
from minigrad import nn, optim

from .. import latent, models
from ..recipe.preset import Preset
from ..steps import RULES, Gan

IMAGES = 4  # in the batch that is watched
AND = " and "
Place = tuple[int, tuple[int, ...]]


@dataclass(frozen=True)
class Drawn:
    """Noise for `count` images, called `z`."""

    z: str
    count: int


@dataclass(frozen=True)
class Ran:
    """A forward pass.

    Attributes:
        network: "G" or "D", with a prime for each update it has had.
        on, gave: the names of the input and of the output, joined by AND where several batches run as one.
        count: images.
        statistics: what BatchNorm used: "batch", "running", or "none" where the network has none.
        dropout: whether Dropout dropped.
        graph: whether the pass was recorded, for gradients.
        through: for D, whether the graph of its input leads on into G.
        buffers: the running statistics that moved.
    """

    network: str
    on: str
    gave: str
    count: int
    statistics: str
    dropout: bool
    graph: bool
    through: bool
    buffers: tuple[str, ...]


@dataclass(frozen=True)
class Cost:
    """The loss of D's output `judged` against `label`; without a graph it is only written down.

    The label is None for a cost of G's own, which has none.
    """

    judged: str
    label: float | None
    graph: bool


@dataclass(frozen=True)
class Differentiated:
    """Gradients from `costs` for `parameters` of `network`; `added` to ones that were there."""

    network: str
    costs: tuple[tuple[str, float | None], ...]
    parameters: tuple[str, ...]
    added: bool


@dataclass(frozen=True)
class Updated:
    """A step of the optimizer of `network`, and which parameters of either network moved."""

    network: str
    moved: tuple[str, ...]


Event = Drawn | Ran | Cost | Differentiated | Updated


def watch(preset: Preset, images: int = IMAGES) -> list[Event]:
    """The events of one step of the recipe, on a batch of `images`, in order."""
    return _Watcher(replace(preset, batch_size=images)).events


class _Watcher:
    """Runs a step whose networks, noise, loss and optimizers write down what is done with them."""

    def __init__(self, preset: Preset) -> None:
        mg.manual_seed(preset.seed)
        self.preset = preset
        self.events: list[Event] = []
        networks = (network.to("cpu") for network in models.build(preset))  # where numbers have a place
        self.networks = dict(zip("GD", networks, strict=True))
        self._names: dict[Place, tuple[str, mg.Tensor]] = {}  # the tensor keeps its memory alive
        self._through: dict[str, bool] = {}  # by the name of D's output
        self._costs: list[Cost] = []  # not yet differentiated
        self._draws = 0
        self._updates = {"G": 0, "D": 0}
        self._gradients: dict[str, dict[str, Any]] = {"G": {}, "D": {}}
        shape = (preset.batch_size, preset.channels, preset.image_size, preset.image_size)
        real = mg.tensor(mg.Generator(preset.seed).uniform(shape, -1.0, 1.0), device="cpu")
        self._name(real, "x")
        RULES[preset.step](self._gan(), real)

    def _gan(self) -> Gan:
        gan = Gan.of(self.preset, self.networks["G"], self.networks["D"], self._draw)
        for name, network in self.networks.items():
            # In the method's place, so that the step calls it as it calls any network.
            network.forward = self._watched_forward(name, network)  # type: ignore[method-assign]
        self._watch_updates("G", gan.optimizer_g)
        self._watch_updates("D", gan.optimizer_d)
        of_generator = gan.loss.generator_cost
        watched = {"cost": self._watched_cost(gan.loss.cost)}
        if of_generator is not None:
            watched["generator_cost"] = self._watched_cost(of_generator)
        return replace(gan, loss=replace(gan.loss, **watched))

    def _name(self, tensor: mg.Tensor, name: str) -> None:
        self._names[_place(tensor)] = (name, tensor)

    def _parts_of(self, tensor: mg.Tensor) -> list[tuple[str, int]]:
        """Return the parts of a batch in their order: names, and the number of images of each.

        Raises KeyError where it holds anything else than what has been named.
        """
        known = self._names.get(_place(tensor))
        if known is not None:
            return [(known[0], len(tensor))]
        rest, parts = tensor.numpy(), []
        named = [(name, own.numpy()) for name, own in self._names.values() if len(own)]
        while len(rest):
            part = next(((name, len(own)) for name, own in named if _begins_with(rest, own)), None)
            if part is None:
                raise KeyError("a network was given, or judged, what neither player made")
            parts.append(part)
            rest = rest[part[1] :]
        return parts

    def _name_of(self, tensor: mg.Tensor) -> str:
        return AND.join(name for name, _ in self._parts_of(tensor))

    def _draw(self, count: int) -> mg.Tensor:
        self._look_for_gradients()
        self._draws += 1
        z = latent.draw(self.preset, count, mg.Generator(self.preset.seed, self._draws), "cpu")
        self._name(z, f"z{self._draws}")
        self.events.append(Drawn(f"z{self._draws}", count))
        return z

    def _watched_forward(self, name: str, network: nn.Module) -> Callable[[mg.Tensor], mg.Tensor]:
        forward = network.forward

        def watched(given: mg.Tensor) -> mg.Tensor:
            self._look_for_gradients()
            before = _copies(network.named_buffers())
            output = forward(given)
            parts = self._parts_of(given)
            through = name == "D" and given.requires_grad
            gave = self._name_parts(output, name, parts, through)
            normalised = any(isinstance(m, nn.BatchNorm) for _, m in network.named_modules())
            drops = any(isinstance(m, nn.Dropout) for _, m in network.named_modules())
            mode = "batch" if network.training else "running"
            moved = _differing(before, _copies(network.named_buffers()))
            on = AND.join(name for name, _ in parts)
            self.events.append(
                Ran(
                    self._primed(name),
                    on,
                    gave,
                    len(given),
                    mode if normalised else "none",
                    drops and network.training,
                    output.requires_grad,
                    through,
                    moved,
                )
            )
            return output

        return watched

    def _name_parts(
        self, output: mg.Tensor, network: str, parts: list[tuple[str, int]], through: bool
    ) -> str:
        """Call each part of an output after what it was made of."""
        names, rest = [], output.detach()
        for on, count in parts:
            names.append(f"{self._primed(network)}({on})")
            self._name(output if len(parts) == 1 else rest[:count], names[-1])
            self._through[names[-1]] = through
            rest = rest[count:]
        self._through[AND.join(names)] = through
        return AND.join(names)

    def _primed(self, name: str) -> str:
        """G after its update is called G'."""
        return name + "'" * self._updates[name]

    def _watched_cost(self, cost: Callable[..., mg.Tensor]) -> Any:
        def watched(judged: mg.Tensor, *label: float) -> mg.Tensor:
            value = cost(judged, *label)
            event = Cost(self._name_of(judged), label[0] if label else None, value.requires_grad)
            self.events.append(event)
            if event.graph:
                self._costs.append(event)
            return value

        return watched

    def _watch_updates(self, name: str, optimizer: optim.Adam) -> None:
        step = optimizer.step

        def watched() -> None:
            self._look_for_gradients()
            before = self._parameters()
            step()
            self.events.append(Updated(name, _differing(before, self._parameters())))
            self._updates[name] += 1

        optimizer.step = watched  # type: ignore[method-assign]  # likewise

    def _parameters(self) -> dict[str, Any]:
        return {
            f"{name}.{key}": value
            for name, network in self.networks.items()
            for key, value in _copies(network.named_parameters()).items()
        }

    def _look_for_gradients(self) -> None:
        """Write down the backward pass, if any, since the last event.

        What it was of: for D all costs that are not differentiated yet, for G those whose graph leads there.
        """
        pending = self._costs
        for name, network in self.networks.items():
            found = _copies((k, p.grad) for k, p in network.named_parameters() if p.grad is not None)
            changed = _differing(self._gradients[name], found)
            if changed:
                used = [c for c in pending if name == "D" or self._through[c.judged]]
                self._costs = [c for c in self._costs if c not in used]
                costs = tuple((c.judged, c.label) for c in used)
                added = any(key in self._gradients[name] for key in changed)
                self.events.append(Differentiated(name, costs, changed, added))
            self._gradients[name] = found


def _place(tensor: mg.Tensor) -> Place:
    """Return the address of a tensor's numbers and their shape: the same for a detached tensor."""
    return tensor.numpy().__array_interface__["data"][0], tensor.shape


def _begins_with(images: Any, first: Any) -> bool:
    return np.array_equal(images[: len(first)], first, equal_nan=True)


def _copies(named: Any) -> dict[str, Any]:
    return {name: tensor.numpy().copy() for name, tensor in named}


def _differing(before: dict[str, Any], after: dict[str, Any]) -> tuple[str, ...]:
    """The names whose arrays are new or not what they were."""
    return tuple(k for k, v in after.items() if k not in before or not np.array_equal(before[k], v))
