"""A training step that is captured once as a graph of launches, and replayed from then on.

In Python a step costs some milliseconds, as it launches some hundred kernels one by one. A captured step is
one launch. See examples/how_a_step_is_captured.md.
"""

import traceback
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from typing import Any, Generic, ParamSpec, TypeVar

from . import backend as backends
from . import observer
from .backend import Backend
from .backend.tape import CaptureError, Graph, recording
from .nn import Module
from .ops import Operation
from .optim import Optimizer
from .step_values import Joined, kind_of, own_argument
from .tensor import Tensor, is_grad_enabled
from .uses import Uses, Watcher

PUBLIC = tuple(f"{__package__}.{name}" for name in ("creation", "functional", "ops"))  # modules of functions
RUNS = 2  # calls of one kind, one after another, that run the step before the next is captured

Args = ParamSpec("Args")
Result = TypeVar("Result")


def capture(step: Callable[Args, Result], *, modules: Iterable[Module] = ()) -> "CapturedStep[Args, Result]":
    """Return a function that does what `step` does, on a GPU by one launch.

        step = mg.capture(train_on)
        for x, labels in batches:
            loss = step(x, labels)

    The first two calls run `step`. The next one captures it: it runs `step` once more, only to record the
    launches, and then launches them together. From then on a call launches them and runs no more of `step`.
    The results are the same, bit for bit. Where no device has graphs, as on the CPU, every call runs `step`;
    the device is that of the first call.

    A call runs `step`, in between, where the capture does not hold: for tensors of other sizes or other
    arguments than those captured (the last batch of an epoch), with modules in another mode, with hooks on a
    module, under an observer (`minigrad.inspect`), with gradients recorded or not, with TensorFloat-32 or
    not. Two such calls in a row, alike, and the third is captured in place of the old one.

    A new capture follows, too, if a tensor that the step uses gets other memory (by `.to()`, an assignment to
    `.data`, or an optimizer's `load_state_dict`), a module another attribute, or an optimizer another
    hyperparameter. Changes in place need none, such as those by an optimizer's step or a module's
    `load_state_dict`, nor does a learning rate.

    It requires of `step`:

    - Its Python code has no effects but on tensors, gradients and the optimizers' counts, by drawing random
      numbers, and by `minigrad.each_time`: a replay does not run it. Python's numbers in it, and the branches
      that it takes, are those of the capture.
    - Numbers that the host makes anew in each step come by `minigrad.from_host`. Dropout's random numbers and
      the factors of the package's optimizers do so by themselves.
    - It does not look at values on the device (`.item()`, `.numpy()`, `if loss > 1`), does not give
      parameters and buffers other memory, and works on one device.
    - Tensors that it reads are its arguments, its own, or the same objects in each call. It takes none over
      from the call before but those that it changes in place. So it calls `zero_grad()` before `backward()`.
    - Its arguments are tensors on that device, which are copied, and hashable values. It does not change them
      in place. Tensors among arguments and results require no gradient: the backward pass belongs into the
      step.

    After a replay, `.grad` of each parameter is the same tensor as after the last one, with new values.

    Args:
        step: a function. It returns tensors, also in tuples, lists, dicts and dataclasses. All else in its
            result is as it was in the capture.
        modules: modules whose tensors the step changes without running them, such as running averages.

    Returns a function with the arguments and results of `step`. The results of each call are its own.

    The third call raises CaptureError for a step that can't be captured, with the name of the operation. The
    step is not done then, and its tensors, modules and random generators are as before. Exceptions of `step`
    go through.
    """
    return CapturedStep(step, modules)


class CapturedStep(Generic[Args, Result]):
    """The function that `capture` returns.

    Attributes:
        step: the function that it was made of.
    """

    def __init__(self, step: Callable[Args, Result], modules: Iterable[Module] = ()) -> None:
        self.step, self._further = step, list(modules)
        self._captured: _Capture | None = None
        # The setting of the last call that ran the step with the modes of its modules, how many such calls
        # there were in a row, and what they used.
        self._kind: tuple[Hashable, Hashable] = (None, None)
        self._count = 0
        self._uses = Uses()
        self._graph: Graph | None = None  # that the last of them has warmed up
        self._adds = False  # whether it reads gradients that were there before it
        self._elsewhere = False  # whether it runs on a device without graphs

    @property
    def is_captured(self) -> bool:
        """Whether there is a capture that a call may replay."""
        return self._captured is not None and self._captured.uses.are_unchanged()

    def __call__(self, *args: Args.args, **kwargs: Args.kwargs) -> Result:
        backend = None if self._elsewhere else backends.with_graphs()
        if backend is None or observer.current() or recording() is not None:
            return self.step(*args, **kwargs)
        given = (*args, *kwargs.values())
        setting = _setting(backend, given, kwargs)
        captured = self._captured
        is_known = captured is not None and captured.setting == setting
        uses = captured.uses if captured is not None and is_known else self._uses
        if uses.have_hooks():
            return self.step(*args, **kwargs)
        modes = uses.modes()
        if captured is not None and is_known and captured.modes == modes:
            if captured.adds():
                return self.step(*args, **kwargs)
            if uses.are_unchanged():
                self._count = 0
                result: Result = captured.replay(given)
                return result
            self._captured, self._count = None, 0
        if (setting, modes) == self._kind and self._count == RUNS and self._uses.are_unchanged():
            return self._capture(backend, args, kwargs)
        return self._run(backend, setting, modes, args, kwargs)

    def _run(self, backend: Backend, setting: Hashable, modes: Hashable, args: Any, kwargs: Any) -> Result:
        """Run the step, and see what it uses: once as it is, then in the memory of the graph to come.

        A call of a kind that comes now and then, such as the last batch of an epoch, remains the first.
        """
        count = self._count if (setting, modes) == self._kind else 0
        if count == RUNS:  # something has changed since the last call
            count = 0
        self._count, graph = 0, None  # if the step raises
        gradients = [leaf.grad for leaf in self._uses.leaves]
        with Watcher() as watcher:
            if count:
                graph = backend.graph()
                result: Result = graph.warm_up(lambda: _joined(self.step(*args, **kwargs)))
            else:
                result = self.step(*args, **kwargs)
        self._adds = any(watcher.has_seen(gradient) for gradient in gradients)
        self._uses = watcher.uses(self._uses if count else None, self._further)
        self._elsewhere = not self._uses.includes(backend)
        if not self._elsewhere:
            self._kind, self._count, self._graph = (setting, self._uses.modes()), count + 1, graph
        if graph is not None:
            self._leave_to(graph, backend)
        return result

    def _leave_to(self, graph: Graph, backend: Backend) -> None:
        """Take the gradients of the warm-up out of the graph's memory, for the capture to have all of it."""
        for leaf in self._uses.leaves:
            if leaf.grad is not None and leaf.grad.node is None:
                leaf.grad = Tensor(backend.copy(leaf.grad.data), backend=backend)

    def _capture(self, backend: Backend, args: Any, kwargs: Any) -> Result:
        """Capture the step, and replay it."""
        graph, self._graph, self._count = self._graph, None, 0
        assert graph is not None
        self._uses.check_device(backend)
        self._uses.check_optimizers()
        if self._adds:
            raise CaptureError(
                "capture: the step reads gradients of the step before, which lie elsewhere each time: call "
                "zero_grad() in it, before backward()"
            )
        self._captured = None  # its memory is free for the new one
        captured = _Capture(graph, self._kind, self._uses, self.step, args, kwargs)
        self._captured = captured
        result: Result = captured.replay((*args, *kwargs.values()))
        return result


class _Capture:
    """A graph of a step, with the memory of its arguments and results.

    Raises CaptureError where the step can't be captured, and what the step raises.

    Attributes:
        setting, modes: those of the calls that it serves.
        uses: all that the step works on: the graph holds its addresses.
    """

    def __init__(
        self,
        graph: Graph,
        kind: tuple[Hashable, Hashable],
        uses: Uses,
        step: Callable[..., Any],
        args: Any,
        kwargs: Any,
    ) -> None:
        (self.setting, self.modes), self.uses = kind, uses
        self._arguments = [own_argument(value) for value in (*args, *kwargs.values())]
        positional, named = self._arguments[: len(args)], self._arguments[len(args) :]
        known = [t for t in (*uses.tensors, *self._arguments) if isinstance(t, Tensor)]

        def check(tensor: Tensor) -> None:
            backend, array = tensor.backend, tensor.data
            if not backend.has_graphs or graph.owns(array):
                return
            if not any(t.backend is backend and backend.xp.may_share_memory(t.data, array) for t in known):
                raise CaptureError(
                    f"the step reads a tensor of shape {tensor.shape} that is another in each call: pass it "
                    "as an argument, or change it in place"
                )

        gradients = [(leaf, leaf.grad) for leaf in uses.leaves]
        versions = [(tensor.version_counter, tensor.version) for tensor in uses.tensors]
        try:
            with Watcher(check):
                self._result = graph.capture(
                    lambda: Joined(step(*positional, **dict(zip(kwargs, named, strict=True))))
                )
            uses.check_unchanged()
            self._check_arguments()
        except BaseException as error:
            uses.restore()
            for leaf, gradient in gradients:
                leaf.grad = gradient
            if isinstance(error, CaptureError):
                raise CaptureError(f"capture: {_place_of(error)}{error}") from error
            raise
        # The gradients that the step assigns. Where it does not clear one first, there was none.
        self._gradients = [(leaf, leaf.grad) for leaf, _ in graph.gradients]
        self._empty_before = [leaf for leaf, is_cleared in graph.gradients if not is_cleared]
        self._changes = []
        for counter, before in versions:
            if counter.value != before:
                self._changes.append((counter, counter.value - before))
                counter.value = before  # the replay counts it
        self.graph = graph  # last, so that it goes last: it gives back the memory that the others lie in

    def _check_arguments(self) -> None:
        for own in self._arguments:
            if isinstance(own, Tensor) and own.version:
                raise CaptureError(
                    f"the step changes its argument of shape {own.shape} in place, which a replay would do "
                    "to a copy: return the result, or let the step hold the tensor"
                )

    def adds(self) -> bool:
        """Whether the step would add to gradients that are there now and were not in the capture."""
        return any(leaf.grad is not None for leaf in self._empty_before)

    def replay(self, given: tuple[Any, ...]) -> Any:
        """Do the step by one launch. Returns results of its own."""
        copies = [
            (own.data, value.data)
            for own, value in zip(self._arguments, given, strict=True)
            if isinstance(own, Tensor)
        ]
        block = self.graph.replay(copies, self._result.block)
        for leaf, gradient in self._gradients:
            if leaf.grad is not gradient:
                leaf.grad = gradient
        for counter, changes in self._changes:
            counter.value += changes
        return self._result.parted(block)


def _joined(result: Any) -> Any:
    """Return a result as it is, if it can't be joined or once it was: a warm-up for the capture."""
    with suppress(CaptureError):
        Joined(result)
    return result


def _setting(backend: Backend, given: tuple[Any, ...], names: Iterable[str]) -> Hashable:
    """Return all that a call has in common with the others that a capture serves, but for modules' modes."""
    values = tuple([kind_of(value) for value in given])
    return values, tuple(names), is_grad_enabled(), backend.allows_tf32


def _place_of(error: BaseException) -> str:
    """Return the name of the operation that an exception went through; "" for none.

    That is the innermost operation or function of the engine; of methods of a tensor that call each other,
    the first.
    """
    found, in_tensor = "", False
    while error.__cause__ is not None:
        error = error.__cause__
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner, name = frame.f_locals.get("self"), frame.f_code.co_name
        module = frame.f_globals.get("__name__", "")
        if isinstance(owner, Operation):
            found = f"{owner.name}: "
        elif isinstance(owner, Tensor):
            found = found if in_tensor else f"Tensor.{name}: "
        elif isinstance(owner, Optimizer):
            found = f"{type(owner).__name__}.{name}: "
        elif module.startswith(PUBLIC) and not name.startswith(("_", "<", "as_")):
            found = f"{name}: "
        in_tensor = isinstance(owner, Tensor)
    return found
