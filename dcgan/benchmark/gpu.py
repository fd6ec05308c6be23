"""`dcgan.bench --device gpu`: recipes' steps in all ways there are, on one card."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from minigrad import bench_gpu, inspect
from minigrad.backend import Backend
from minigrad.backend.measuring import Peak
from minigrad.bench import gflop

from ..console import output
from ..device import enough_memory
from ..errors import UserError
from ..recipe.preset import Preset
from .ours import our_step, title
from .theirs import Learner

OURS, CAPTURED = "ours", "ours, captured"
EAGER, GRAPH, COMPILED = "PyTorch", "PyTorch, CUDA graph", "PyTorch, compiled"


class Bench:
    """The benchmark on one card.

    Args:
        engine: of the card.
        torch: the module; None without PyTorch.
        compiled: whether PyTorch's networks are timed by `torch.compile` too.

    PyTorch gets what its documentation recommends for speed: cuDNN tries all its convolutions
    (`cudnn.benchmark`), images lie with their channels innermost, Adam is fused.
    """

    def __init__(self, engine: Backend, torch: Any, compiled: bool) -> None:
        self.engine, self.compiled = engine, compiled
        self.torch: Any = torch if torch is not None and torch.cuda.is_available() else None
        self.missing = "" if torch is self.torch else "PyTorch is installed, but finds no GPU: it is left out"
        if self.torch is not None:
            self.torch.backends.cudnn.benchmark = True

    def run(self, recipes: Sequence[Preset], rounds: int, path: Path | None) -> int:
        """Time the recipes; print their lines and write the figures, recipe by recipe. Returns the exit code.

        It is 1 if a step of ours did not run.
        """
        found = self._limits()
        versions = [f"PyTorch {self.torch.__version__}"] if self.torch else []
        output(bench_gpu.card(self.engine, found, versions))
        if self.missing:
            output(self.missing)
        output(bench_gpu.heads())
        steps: list[bench_gpu.Step] = []
        for preset in recipes:
            steps.append(self._step(preset, rounds))
            self._release_memory()
            output(bench_gpu.lines(steps[-1], found))
            if path is not None:
                bench_gpu.write(path, self.engine, found, steps)
        for theirs in (EAGER, GRAPH, COMPILED):
            if said := bench_gpu.ratios(steps, CAPTURED, theirs):
                output(said)
        failed = [row for step in steps for row in step.rows if row.failure]
        return 1 if {row.way for row in failed} & {OURS, CAPTURED} else 0

    def _limits(self) -> dict[bool, inspect.Limits]:
        """Measure what the card does at most, by whether TF32 is allowed."""
        found = {}
        for tf32 in (True, False):
            self._set_tf32(tf32)
            found[tf32] = inspect.limits(self.engine.device)
        self._release_memory()
        return found

    def _release_memory(self) -> None:
        """Give the memory that neither engine uses any more to both."""
        gc.collect()
        self.engine.release_memory()
        if self.torch is not None:
            self.torch.cuda.empty_cache()

    def _set_tf32(self, allowed: bool) -> None:
        self.engine.allow_tf32(allowed)
        if self.torch is not None:
            self.torch.backends.cuda.matmul.allow_tf32 = allowed
            self.torch.backends.cudnn.allow_tf32 = allowed

    def _step(self, preset: Preset, rounds: int) -> bench_gpu.Step:
        make = partial(bench_gpu.Step, title(preset), preset.batch_size)
        try:
            with enough_memory(self.engine.device, preset.batch_size):
                counts = _counted(preset, self.engine.device)
        except Exception as error:
            said = str(error) if isinstance(error, UserError) else bench_gpu.in_a_line(error)
            failed = tuple(bench_gpu.Row(OURS, tf32, failure=said) for tf32 in bench_gpu.PRECISIONS)
            return make(None, None, None, None, failed)
        self._release_memory()
        rows = bench_gpu.measure(self.engine, self._ways(preset), self._set_tf32, rounds)
        return make(*counts, rows, (OURS, CAPTURED))

    def _ways(self, preset: Preset) -> list[bench_gpu.Way]:
        device, peak = self.engine.device, self.engine.memory_peak
        ways = [
            bench_gpu.Way(OURS, partial(our_step, preset, device), peak),
            bench_gpu.Way(CAPTURED, partial(our_step, preset, device, captured=True), peak),
        ]
        if self.torch is None:
            return ways
        learner = partial(Learner, self.torch, preset, "cuda", channels_last=True)
        theirs: dict[str, Callable[[], Callable[[], Any]]] = {
            EAGER: lambda: learner().step,
            GRAPH: lambda: learner().capture(),
        }
        if self.compiled:
            theirs[COMPILED] = lambda: learner(compiled=True).step
        their_peak = partial(self._their_peak, learner)
        return [*ways, *(bench_gpu.Way(name, make, their_peak) for name, make in theirs.items())]

    @contextmanager
    def _their_peak(self, learner: Callable[[], Learner]) -> Iterator[Peak]:
        """Count the bytes that PyTorch's tensors take, beyond those that were there before.

        A learner takes a step before. In the first one of a size and a precision cuDNN tries its
        convolutions, with workspaces that no later step has.
        """
        cuda = self.torch.cuda
        learner().step()
        self._release_memory()
        cuda.reset_peak_memory_stats()
        before, peak = cuda.memory_allocated(), Peak()
        yield peak
        peak.bytes = cuda.max_memory_allocated() - before


def _counted(preset: Preset, device: str) -> tuple[float, int, int, int]:
    """Return the operations of a step (1e9), its launches of kernels, its matrix products, and the bytes that
    these read and write.
    """
    step = our_step(preset, device)
    operations = gflop(step)
    with inspect.launches() as found:
        step()
    products = sum(each.is_product for each in found.launches)
    moved = sum(each.bytes for each in found.launches)
    return operations, len(found.launches) - products, products, moved
