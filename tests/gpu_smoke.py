"""What to run first on a machine with an NVIDIA GPU: does all agree with the CPU, and how fast is a step?

    PYTHONPATH=. python tests/gpu_smoke.py

A few minutes, most of which go into compiling kernels the first time. Ends with 0 where all is well, 1 where
a result differs (it is named), 2 where there is no GPU to be used. `python -m dcgan.bench --device gpu` times
more recipes.
"""

import argparse
import contextlib
import gc
import io
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import minigrad as mg
from dcgan import bench, presets, train
from dcgan.arguments import positive
from dcgan.benchmark.ours import gan
from dcgan.benchmark.ours import our_step as step_of
from dcgan.device import enough_memory
from dcgan.errors import UserError
from dcgan.recipe.plan import check_batches
from dcgan.run import checkpoint
from dcgan.steps import RULES
from minigrad import backend
from minigrad.inspect import Shadow, ShadowError, measure
from minigrad.ops import OPERATIONS
from minigrad.random import get_state

REPLAYS, AHEAD_SIZE = 40, 4096  # of `check_ahead`: some milliseconds each
CASE_TOLERANCE = {"float32": 1e-5, "float64": 1e-10}  # forward and gradient, by norms


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


def check_captured(name: str, batch_size: int) -> bool:
    """Whether six steps leave the same bits captured as one by one; the fifth has a smaller batch."""
    return _six_steps(name, batch_size, captured=True) == _six_steps(name, batch_size, captured=False)


def _six_steps(name: str, batch_size: int, captured: bool) -> list[bytes]:
    """The scalars of six steps, and then all numbers of both networks, as they lie in memory."""
    preset = presets.get(name, batch_size=batch_size)
    made, real = gan(preset, "gpu")
    step = partial(RULES[preset.step], made)
    run = mg.capture(step) if captured else step
    results = [run(real[: batch_size - (number == 4)]) for number in range(6)]
    assert not captured or run.is_captured
    scalars = [value.numpy().tobytes() for result in results for value in vars(result).values()]
    return [*scalars, *_numbers(made)]


def _numbers(made: Any) -> list[bytes]:
    """All parameters and buffers of both networks, and the state of the engine's random numbers."""
    states = (network.state_dict() for network in (made.generator, made.discriminator))
    return [*(t.numpy().tobytes() for state in states for t in state.values()), str(get_state()).encode()]


def check_resumed() -> bool:
    """Whether eight steps of `quick` write the same files in one run, and resumed after the first four."""
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = Path(folder, "whole"), Path(folder, "parts")
        options = ["--preset", "quick", "--device", "gpu", "--batch-size", "4"]
        options += ["--set", "grid_rows=2", "--set", "grid_columns=2"]
        _quietly(train.main, [*options, "--steps", "8", "--out", str(whole)])
        _quietly(train.main, [*options, "--steps", "4", "--out", str(parts)])
        _quietly(train.main, ["--resume", str(parts), "--steps", "8", "--device", "gpu"])
        return _files(whole) == _files(parts)


def _files(run: Path) -> dict[str, bytes]:
    """All that equal runs have in common: not the speed, nor how many older checkpoints stayed."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and path.name != "timing.jsonl" and path.parent.name != checkpoint.OLDER_NAME
    }


def _quietly(command: Callable[[Sequence[str]], int], options: Sequence[str]) -> None:
    """Run a command without its output. Raises RuntimeError, with that, where it fails."""
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
        code = command(options)
    if code:
        raise RuntimeError(f"{' '.join(options)}: exit code {code}: {said.getvalue()}")


def check_memory() -> bool:
    """Whether a step too large for the memory says so, and others then have the same bits in both ways."""
    numbers = []
    for captured in (False, True):
        made, real = gan(presets.get("flux", batch_size=2), "gpu")
        step = partial(RULES["fresh_noise"], made)
        run = mg.capture(step) if captured else step
        gc.collect()
        backend.get("gpu").release_memory()
        free = backend.get("gpu").free_memory()
        assert free is not None
        made.batch_size = 1 + 5 * free // (4 * 4 * 12544)  # G's first layer makes 5/4 of what is free
        try:
            with enough_memory("gpu", made.batch_size):
                run(real)
            raise RuntimeError(f"a batch of {made.batch_size} fits into {free} bytes")
        except UserError as error:
            if f"Use a smaller --batch-size (it is {made.batch_size})" not in str(error):
                raise
        made.batch_size = 2
        for _ in range(4):
            run(real)
        numbers.append(_numbers(made))
    return numbers[0] == numbers[1]


def check_ahead(replays: int, size: int) -> bool:
    """Whether each of many replays has inputs and a result of its own, though none is waited for.

    A product of size x size matrices holds each up, so that the host runs far ahead of the device.
    """
    numbers = iter(range(replays))
    matrix = mg.tensor(np.zeros((size, size), np.float32), device="gpu")

    def count() -> mg.Tensor:
        return (matrix @ matrix).mean() + mg.from_host(lambda: next(numbers), (), device="gpu")

    step = mg.capture(count)
    return [result.item() for result in [step() for _ in range(replays)]] == list(range(replays))


def our_step(batch_size: int, device: str) -> Callable[[], Any]:
    """One step of flux."""
    return step_of(presets.get("flux", batch_size=batch_size), device)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    names = list(presets.PRESETS)
    parser.add_argument("--presets", nargs="+", choices=names, default=names, help="recipes (default: all)")
    parser.add_argument("--timed", nargs="+", choices=names, default=["flux"], help="timed (default: flux)")
    parser.add_argument("--batch-size", type=positive, help="of the timed steps (default: the recipe's)")
    parser.add_argument("--rounds", type=positive, default=5, help="of timed steps (default: 5)")
    parser.add_argument("--no-pytorch", action="store_true", help="time ours alone")
    given = parser.parse_args(argv)
    try:
        for name in given.timed if given.batch_size else ():
            check_batches(presets.get(name, batch_size=given.batch_size), given.batch_size)
    except UserError as error:
        parser.error(str(error))
    try:
        gpu = backend.get("gpu")
    except (ImportError, RuntimeError) as error:
        print(f"no GPU to be used: {error}", file=sys.stderr)
        return 2
    print(gpu.describe())
    wrong = check_all(given.presets)
    print("all is well" if not wrong else "NOT WELL:", *wrong, sep="\n  ")
    timing = ["--device", "gpu", "--rounds", str(given.rounds), "--presets", *given.timed]
    timing += ["--batch-size", str(given.batch_size)] if given.batch_size else []
    timing += ["--no-pytorch"] if given.no_pytorch else []
    return 1 if bench.main(timing) or wrong else 0


def check_all(recipes: Sequence[str]) -> list[str]:
    """Run all checks and print what each found; what is wrong."""
    print("operations, forward and back, against the CPU:")
    count, wrong = check_operations()
    print(f"  {count - len(wrong)} of {count} cases agree", *wrong, sep="\n  ")
    print("two steps of each recipe, every operation done again on the CPU from the same inputs:")
    wrong += [problem for name in recipes if (problem := check_recipe(name, batch_size=8))]
    print("the same bits:")
    checks = {
        "three steps of flux, twice": partial(check_repeats, 4),
        **{
            f"six steps of {name}, captured and one by one": partial(check_captured, name, 8)
            for name in recipes
        },
        f"{REPLAYS} replays that nobody waits for": partial(check_ahead, REPLAYS, AHEAD_SIZE),
        "the files of a run of quick, resumed and uninterrupted": check_resumed,
        "four steps of flux after one for which memory was too small, captured and one by one": check_memory,
    }
    for what, check in checks.items():
        try:
            said = "yes" if check() else "NO"
        except Exception as error:
            said = f"NO: {type(error).__name__}: {error}"
        print(f"  {what}: {said}")
        wrong += [] if said == "yes" else [f"{what}: {said}"]
    return wrong


if __name__ == "__main__":
    sys.exit(main())
