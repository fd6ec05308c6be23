"""What to run first on a machine with an NVIDIA GPU: does all agree with the CPU, and how fast is a step?

    python tests/gpu_smoke.py

About a minute, most of which goes into compiling kernels the first time. Ends with 0 where all is well, 1
where a result differs (it is named), 2 where there is no GPU to be used.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import minigrad as mg
from dcgan import latent, models, presets
from dcgan.recipe.preset import Preset
from dcgan.steps import RULES, Gan
from minigrad import backend
from minigrad.inspect import Shadow, ShadowError, measure
from minigrad.ops import OPERATIONS

CASE_TOLERANCE = {"float32": 1e-5, "float64": 1e-10}  # forward and gradient, by norms


def gan(preset: Preset, device: str) -> tuple[Gan, mg.Tensor]:
    """The networks of a recipe on a device, and a batch of noise for real images."""
    mg.manual_seed(preset.seed)
    networks = [network.to(device) for network in models.build(preset)]
    z = mg.Generator(preset.seed, 1)
    shape = (preset.batch_size, preset.channels, preset.image_size, preset.image_size)
    real = mg.tensor(mg.Generator(preset.seed, 2).uniform(shape, -1.0, 1.0), device=device)
    return Gan.of(preset, *networks, lambda n: latent.draw(preset, n, z, device)), real


def check_operations() -> tuple[int, list[str]]:
    """How many cases of operations were run, forward and back, on both devices; and those that differ."""
    wrong, count = [], 0
    for operation in OPERATIONS.values():
        for case in operation.cases():
            for dtype, tolerance in CASE_TOLERANCE.items():
                results = [_run_case(case, dtype, device) for device in ("gpu", "cpu")]
                error = max(measure(got, expected)[0] for got, expected in zip(*results, strict=True))
                count += 1
                if error > tolerance:
                    wrong.append(f"{operation.name} ({case.label or 'plain'}, {dtype}): error {error:.2g}")
    return count, wrong


def _run_case(case: Any, dtype: str, device: str) -> list[Any]:
    """The result of a case and the gradients of its inputs, on the host."""
    arrays = case.inputs(np.random.default_rng(7))
    inputs = [mg.tensor(np.asarray(a), dtype, device, requires_grad=True) for a in arrays]
    y = case.call(*inputs)
    start = np.random.default_rng(8).normal(size=y.shape).astype(str(y.dtype))
    gradients = mg.grad(y, inputs, mg.tensor(start, device=y.device), allow_unused=True)
    return [np.asarray(t.numpy()) for t in (y, *gradients) if t is not None]


def check_recipe(name: str, batch_size: int) -> str:
    """Two steps of a recipe, each operation done again on the CPU: what differs, or "" and what agreed."""
    made, real = gan(presets.get(name, batch_size=batch_size), "gpu")
    shadow = Shadow({"generator": made.generator, "discriminator": made.discriminator})
    try:
        with shadow:
            for _ in range(2):
                RULES[presets.get(name).step](made, real)
    except ShadowError as error:
        print(f"  {name:<20} {error}")
        return str(error)
    print(f"  {name:<20} {shadow.checked} results agree, the largest error is {shadow.worst:.1e}")
    return ""


def check_repeats(batch_size: int) -> bool:
    """Whether three steps from one seed give the same bits twice."""
    runs = []
    for _ in range(2):
        made, real = gan(presets.get("flux", batch_size=batch_size), "gpu")
        for _ in range(3):
            RULES["fresh_noise"](made, real)
        runs.append([p.numpy().tobytes() for p in made.generator.parameters()])
    return runs[0] == runs[1]


def milliseconds(step: Callable[[], Any], wait: Callable[[], Any], steps: int) -> float:
    """The median time of a step, after two to warm up."""
    times = []
    for _ in range(steps + 2):
        started = time.perf_counter()
        step()
        wait()
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times[2:])


def our_step(batch_size: int, device: str) -> Callable[[], Any]:
    """One step of flux."""
    made, real = gan(presets.get("flux", batch_size=batch_size), device)
    return lambda: RULES["fresh_noise"](made, real)


def torch_step(batch_size: int) -> tuple[Callable[[], Any], Callable[[], Any]] | None:
    """The same step in PyTorch on the GPU, and how to wait for it; None where that can't be had."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    nn, F = torch.nn, torch.nn.functional
    g = nn.Sequential(
        nn.Linear(100, 12544, bias=False), nn.BatchNorm1d(12544), nn.ReLU(), nn.Unflatten(1, (256, 7, 7)),
        nn.ConvTranspose2d(256, 128, 5, 1, 2, bias=False), nn.BatchNorm2d(128), nn.ReLU(),
        nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.ConvTranspose2d(64, 1, 4, 2, 1, bias=False), nn.Tanh(),
    ).cuda()  # fmt: skip
    d = nn.Sequential(
        nn.Conv2d(1, 64, 4, 2, 1), nn.LeakyReLU(0.2), nn.Dropout(0.3),
        nn.Conv2d(64, 128, 4, 2, 1), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Flatten(), nn.Linear(6272, 1),
    ).cuda()  # fmt: skip
    adam_g, adam_d = (torch.optim.Adam(network.parameters(), 2e-4) for network in (g, d))
    real = torch.rand(batch_size, 1, 28, 28).cuda() * 2 - 1
    one, zero = torch.ones(batch_size, 1).cuda(), torch.zeros(batch_size, 1).cuda()
    cost = F.binary_cross_entropy_with_logits

    def step() -> None:
        g.eval()
        with torch.no_grad():
            fake = g(torch.randn(batch_size, 100).cuda())
        g.train()
        adam_d.zero_grad()
        (cost(d(real), one) + cost(d(fake), zero)).backward()
        adam_d.step()
        adam_g.zero_grad()
        cost(d(g(torch.randn(batch_size, 100).cuda())), one).backward()
        adam_g.step()

    return step, torch.cuda.synchronize


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--batch-size", type=int, default=128, help="of the timed steps (default: 128)")
    parser.add_argument("--steps", type=int, default=30, help="timed steps (default: 30)")
    parser.add_argument("--presets", nargs="+", default=list(presets.PRESETS), help="recipes (default: all)")
    arguments = parser.parse_args(argv)
    try:
        gpu = backend.get("gpu")
    except (ImportError, RuntimeError) as error:
        print(f"no GPU to be used: {error}", file=sys.stderr)
        return 2
    runtime = gpu.xp.cuda.runtime
    name = runtime.getDeviceProperties(0)["name"].decode()
    print(f"{name}, CuPy {gpu.xp.__version__}, CUDA {runtime.runtimeGetVersion()}")
    print("operations, forward and back, against the CPU:")
    count, wrong = check_operations()
    print(f"  {count - len(wrong)} of {count} cases agree", *wrong, sep="\n  ")
    print("two steps of each recipe, every operation done again on the CPU from the same inputs:")
    wrong += [problem for name in arguments.presets if (problem := check_recipe(name, batch_size=8))]
    repeats = check_repeats(batch_size=8)
    print(f"three steps of flux, twice: {'the same bits' if repeats else 'OTHER BITS'}")
    print(f"one step of flux, batch {arguments.batch_size}, median of {arguments.steps}:")
    synchronize = gpu.xp.cuda.Stream.null.synchronize
    on_gpu = milliseconds(our_step(arguments.batch_size, "gpu"), synchronize, arguments.steps)
    on_cpu = milliseconds(our_step(arguments.batch_size, "cpu"), lambda: None, min(arguments.steps, 5))
    print(f"  this GPU {on_gpu:.2f} ms, this CPU {on_cpu:.1f} ms")
    theirs = torch_step(arguments.batch_size)
    if theirs is not None:
        print(f"  PyTorch on this GPU {milliseconds(*theirs, arguments.steps):.2f} ms")
    return 1 if wrong or not repeats else 0


if __name__ == "__main__":
    sys.exit(main())
