"""PyTorch's side of `dcgan bench`: networks of the same layers as ours, and steps by the same rules.

As in ours, only the gradients that an update uses are computed. Its discriminators always see real and fake
images in two passes: in one, where ours do it so, PyTorch was a little slower on the CPU. Its Adam has no
`epsilon_hat`: where a recipe has, PyTorch's steps take as long but go elsewhere. z is drawn on the device, by
ours on the host. It computes the losses and nothing else to be logged.

Adam is fused: all of its update in one pass over memory. On a GPU it can also be captured.
"""

import gc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..errors import UserError
from ..recipe import layers
from ..recipe.layer import Layer
from ..recipe.preset import Preset

WARM_UP = 3  # steps before a capture, as PyTorch's documentation has it
STEPS = ("fresh_noise", "same_fakes", "generator_first")
LOSSES = ("bce_with_logits", "bce", "bce_epsilon")


def check(preset: Preset) -> None:
    """Raise UserError if a recipe has a step, a loss or a layer that PyTorch's side does not know."""
    kinds = {type(spec): None for spec in (*preset.generator, *preset.discriminator)}
    own = [kind.__name__ for kind in kinds if kind not in vars(layers).values()]
    own += [preset.step] if preset.step not in STEPS else []
    own += [preset.loss] if preset.loss not in LOSSES else []
    if own:
        raise UserError(
            f"preset {preset.name!r}: {', '.join(own)} {'is' if len(own) == 1 else 'are'} not written for "
            "PyTorch: give --no-pytorch to time ours alone"
        )


class Learner:
    """The networks and optimizers of a recipe in PyTorch, and its step: `Learner(torch, preset).step()`.

    Args:
        torch: the module.
        device: "cpu" or "cuda".
        channels_last: whether networks and images lie with their channels innermost.
        compiled: whether `torch.compile` makes the networks, in its default mode.
    """

    def __init__(
        self,
        torch: Any,
        preset: Preset,
        device: str = "cpu",
        *,
        channels_last: bool = False,
        compiled: bool = False,
    ) -> None:
        torch.manual_seed(preset.seed)
        self.torch, self.preset, self.device = torch, preset, device
        self._graph: Any = None
        shape = (preset.channels, preset.image_size, preset.image_size)
        self._placed = {"device": device}
        if channels_last:
            self._placed["memory_format"] = torch.channels_last
        self.generator = _network(torch, preset.generator, preset.z_shape).to(**self._placed)
        self.discriminator = _network(torch, preset.discriminator, shape).to(**self._placed)
        self.adam_g = self._adam(self.generator, preset.lr_generator)
        self.adam_d = self._adam(self.discriminator, preset.lr_discriminator)
        if compiled:
            _compile_each_network(torch)
            self.generator, self.discriminator = map(torch.compile, (self.generator, self.discriminator))
        self.real = (torch.rand(preset.batch_size, *shape) * 2 - 1).to(**self._placed)
        self.labels = {
            label: torch.full((preset.batch_size, 1), label, device=device) for label in (0.0, 1.0)
        }
        self.step: Callable[[], None] = getattr(self, f"_{preset.step}")

    def capture(self) -> Callable[[], None]:
        """Return the step as one CUDA graph, captured after some steps on a stream of its own.

        For a learner on "cuda".

        Source: PyTorch's documentation, "CUDA semantics", "CUDA Graphs".
        """
        cuda = self.torch.cuda
        stream = cuda.Stream()
        stream.wait_stream(cuda.current_stream())
        with cuda.stream(stream):
            for _ in range(WARM_UP):
                self.step()
        cuda.current_stream().wait_stream(stream)
        for adam in (self.adam_g, self.adam_d):
            adam.zero_grad()  # the graph must make gradients in its own memory, and add to none of before
        gc.collect()  # else memory of before might be freed within the capture, which ends it
        self._graph = cuda.CUDAGraph()
        # A capture that fails leaves its own stream as the current one; this context puts it back.
        with cuda.stream(cuda.current_stream()), cuda.graph(self._graph):
            self.step()
        return self._replay

    def _replay(self) -> None:
        self._graph.replay()

    def _adam(self, network: Any, lr: float) -> Any:
        betas = (self.preset.beta1, self.preset.beta2)
        adam = partial(
            self.torch.optim.Adam, list(network.parameters()), lr, betas, self.preset.adam_eps, fused=True
        )
        if self.device == "cuda":
            return adam(capturable=True)
        try:
            return adam()
        except RuntimeError:  # PyTorch before 2.4 has no fused one for the CPU
            return adam(fused=False)

    def _draw(self) -> Any:
        z = self.torch.randn if self.preset.z_distribution == "normal" else self.torch.rand
        return z(self.preset.batch_size, *self.preset.z_shape, device=self.device)

    def _cost(self, judged: Any, label: float) -> Any:
        functional = self.torch.nn.functional
        if self.preset.loss == "bce_with_logits":
            return functional.binary_cross_entropy_with_logits(judged, self.labels[label])
        if self.preset.loss == "bce":
            return functional.binary_cross_entropy(judged, self.labels[label])
        return -self.torch.log((judged if label else 1 - judged) + 1e-12).mean()

    def _descend(self, adam: Any, *losses: Any) -> None:
        adam.zero_grad()
        for loss in losses:
            loss.backward()
        adam.step()

    def _fresh_noise(self) -> None:
        self.generator.eval()
        with self.torch.no_grad():
            fake = self.generator(self._draw())
        self.generator.train()
        self._update_discriminator(fake)
        self._update_generator(self.generator(self._draw()))

    def _same_fakes(self) -> None:
        fake = self.generator(self._draw())
        self._update_discriminator(fake.detach())
        self._update_generator(fake)

    def _generator_first(self) -> None:
        z = self._draw()
        self._update_generator(self.generator(z))
        with self.torch.no_grad():
            fake = self.generator(z)
        self._update_discriminator(fake)

    def _update_discriminator(self, fake: Any) -> None:
        costs = self._cost(self.discriminator(self.real), 1.0), self._cost(self.discriminator(fake), 0.0)
        self._descend(self.adam_d, *costs)

    def _update_generator(self, fake: Any) -> None:
        self.discriminator.requires_grad_(False)  # no gradients of its parameters
        self._descend(self.adam_g, self._cost(self.discriminator(fake), 1.0))
        self.discriminator.requires_grad_(True)


def _compile_each_network(torch: Any) -> None:
    """Let `torch.compile` compile all networks of the process, with and without gradients.

    All count as forms of one function. Past a limit of 8 further ones would run as they are, in silence.
    """
    config = torch._dynamo.config
    config.recompile_limit = 256
    config.fail_on_recompile_limit_hit = True


def _network(torch: Any, specs: tuple[Layer, ...], shape: tuple[int, ...]) -> Any:
    """A recipe's network of PyTorch's layers; sizes are found by trying each layer on zeros."""
    modules = []
    x = torch.zeros(2, *shape)
    for spec in specs:
        module = _module(torch.nn, spec, x.shape)
        x = module(x)
        modules.append(module)
    return torch.nn.Sequential(*modules)


def _module(nn: Any, spec: Layer, shape: Sequence[int]) -> Any:
    match spec:
        case layers.Dense():
            return nn.Linear(shape[1], spec.features, bias=spec.bias)
        case layers.Conv():
            return _same(nn, spec, nn.Conv2d, shape)
        case layers.ConvTranspose():
            return _same(nn, spec, nn.ConvTranspose2d, shape)
        case layers.BatchNorm():
            norm = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
            return norm(shape[1], spec.eps, spec.momentum)
        case layers.ReLU():
            return nn.ReLU()
        case layers.LeakyReLU():
            return nn.LeakyReLU(spec.slope)
        case layers.Tanh():
            return nn.Tanh()
        case layers.Sigmoid():
            return nn.Sigmoid()
        case layers.Dropout():
            return nn.Dropout(spec.p)
        case layers.Flatten():
            return nn.Flatten()
        case layers.Reshape():
            return nn.Unflatten(1, (spec.channels, spec.height, spec.width))
    raise TypeError(f"{spec}: no such layer in PyTorch")


def _same(nn: Any, spec: Any, kind: Any, shape: Sequence[int]) -> Any:
    """A convolution, padded as the recipe says; TensorFlow's "same" by what PyTorch has for it.

    The odd pixel of "same" lies after: before a convolution it is padded by a layer of its own; a transposed
    one makes a row and a column more than are kept, by output_padding, with the same work.
    """
    if spec.padding != "same":
        padding = 0 if spec.padding == "valid" else spec.padding
        return kind(shape[1], spec.channels, spec.kernel, spec.stride, padding, bias=spec.bias)
    if kind is nn.ConvTranspose2d:
        before = (spec.kernel - spec.stride + 1) // 2
        extra = spec.stride + 2 * before - spec.kernel
        return kind(shape[1], spec.channels, spec.kernel, spec.stride, before, extra, bias=spec.bias)
    size = shape[2]
    total = max((-(-size // spec.stride) - 1) * spec.stride + spec.kernel - size, 0)
    sides = (total // 2, total - total // 2) * 2
    return nn.Sequential(
        nn.ZeroPad2d(sides), kind(shape[1], spec.channels, spec.kernel, spec.stride, bias=spec.bias)
    )
