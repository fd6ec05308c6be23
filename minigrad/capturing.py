"""A training step that is captured once as a graph of launches, and replayed from then on.

In Python a step costs some milliseconds, as it launches some hundred kernels one by one. A captured step is
one launch. See examples/how_a_step_is_captured.md.
"""

import copy
import traceback
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Generic, ParamSpec, TypeVar

from . import backend as backends
from . import creation, observer
from .backend import Backend
from .backend.arrays import Array
from .backend.tape import ALIGNMENT, CaptureError, Graph, recording
from .ops import Operation
from .optim import Optimizer
from .tensor import Tensor, is_grad_enabled
from .uses import Uses, Watcher

RUNS = 2  # calls of one kind, one after another, that run the step before the next is captured

Args = ParamSpec("Args")
Result = TypeVar("Result")


def capture(step: Callable[Args, Result]) -> "CapturedStep[Args, Result]":
    """Return a function that does what `step` does, on a GPU by one launch.

        step = mg.capture(train_on)
        for x, labels in batches:
            loss = step(x, labels)

    The first two calls run `step`. The next one captures it: it runs `step` once more, only to take down the
    launches, and then launches them together. From then on a call launches them and runs no more of `step`.
    The results are the same, bit for bit. Where no device has graphs, as on the CPU, every call runs `step`.

    A call runs `step`, in between, where the capture does not hold: for tensors of other sizes or other
    arguments than those captured (the last batch of an epoch), with modules in another mode, with hooks on a
    module, under an observer (`minigrad.inspect`), with gradients recorded or not, with TensorFloat-32 or
    not. Two such calls in a row, alike, and the third is captured in place of the old one.

    A new capture follows, too, if a tensor that the step uses gets other memory: by `.to()`, an assignment to
    `.data`, or an optimizer's `load_state_dict`. What changes in place, by an optimizer's step or a module's
    `load_state_dict`, needs none, nor does a learning rate.

    It requires of `step`:

    - Its Python code has no effects but on tensors, optimizers and random generators, and by
      `minigrad.each_time`: a replay does not run it. Python's numbers in it, and the branches that it takes,
      are those of the capture.
    - Numbers that the host makes anew in each step come by `minigrad.from_host`. Dropout's random numbers and
      the factors of the package's optimizers do so by themselves.
    - It does not look at values on the device (`.item()`, `.numpy()`, `if loss > 1`), does not give
      parameters and buffers other memory, and works on one device.
    - It takes no tensor over from the call before but those that it changes in place. So it calls
      `zero_grad()` before `backward()`.
    - Its arguments are tensors on that device, which are copied, and hashable values. Tensors among arguments
      and results require no gradient: the backward pass belongs into the step.

    Args:
        step: a function. It returns tensors, also in tuples, lists, dicts and dataclasses. All else in its
            result is as it was in the capture.

    Returns a function with the arguments and results of `step`. The results of each call are its own.

    The third call raises CaptureError for a step that can't be captured, with the name of the operation. The
    step is not done then, and everything is as before. What `step` itself raises goes through.
    """
    return CapturedStep(step)


class CapturedStep(Generic[Args, Result]):
    """The function that `capture` returns.

    Attributes:
        step: the function that it was made of.
    """

    def __init__(self, step: Callable[Args, Result]) -> None:
        self.step = step
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
        if backend is None or observer.observers or recording() is not None:
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
            if uses.are_unchanged():
                self._count = 0
                result: Result = captured.replay(given)
                return result
            self._captured, self._count = None, 0
        if (setting, modes) == self._kind and self._count == RUNS:
            return self._capture(backend, args, kwargs)
        return self._run(backend, setting, modes, args, kwargs)

    def _run(self, backend: Backend, setting: Hashable, modes: Hashable, args: Any, kwargs: Any) -> Result:
        """Run the step, and see what it uses: once as it is, then in the memory of the graph to come.

        What comes now and then, such as the last batch of an epoch, never gets so far.
        """
        count = self._count if (setting, modes) == self._kind else 0
        self._count = 0  # if the step raises
        gradients = [leaf.grad for leaf in self._uses.leaves]
        with Watcher() as watcher:
            if count:
                self._graph = backend.graph()
                result: Result = self._graph.warm_up(lambda: self.step(*args, **kwargs))
            else:
                result = self.step(*args, **kwargs)
        self._adds = any(watcher.has_seen(gradient) for gradient in gradients)
        self._uses = watcher.uses(self._uses if count else None)
        self._elsewhere = not self._uses.includes(backend)
        if not self._elsewhere:
            for tensor in _tensors_in(result):
                _check_no_gradient("result", tensor)
            self._kind = (setting, self._uses.modes())
            self._count = count + 1
        return result

    def _capture(self, backend: Backend, args: Any, kwargs: Any) -> Result:
        """Capture the step, and replay it."""
        graph, self._graph, self._count = self._graph, None, 0
        assert graph is not None
        self._uses.check_device(backend)
        if self._adds:
            raise CaptureError(
                "capture: the step adds to the gradients of the step before, which lie elsewhere each time: "
                "call zero_grad() in it, before backward()"
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
        self._arguments = [_own_argument(value) for value in (*args, *kwargs.values())]
        positional, named = self._arguments[: len(args)], self._arguments[len(args) :]
        gradients = [(leaf, leaf.grad) for leaf in uses.leaves]
        versions = [(tensor.version_counter, tensor.version) for tensor in uses.tensors]
        try:
            self._result = graph.capture(
                lambda: _Joined(step(*positional, **dict(zip(kwargs, named, strict=True))))
            )
            uses.check_memory()
        except BaseException as error:
            uses.restore()
            for leaf, gradient in gradients:
                leaf.grad = gradient
            if isinstance(error, CaptureError):
                raise CaptureError(f"capture: {_place_of(error)}{error}") from error
            raise
        # What the step leaves behind in Python's objects, for the replays to leave there.
        self._gradients = [(leaf, leaf.grad) for leaf in uses.leaves]
        self._changes = [(c, c.value - before) for c, before in versions if c.value != before]
        self.graph = graph  # last, so that it goes last: it gives back the memory that the others lie in

    def replay(self, given: tuple[Any, ...]) -> Any:
        """Do the step by one launch. Returns results of its own."""
        for own, value in zip(self._arguments, given, strict=True):
            if isinstance(own, Tensor):
                own.data[...] = value.data
        self.graph.replay()
        for leaf, gradient in self._gradients:
            if leaf.grad is not gradient:
                leaf.grad = gradient
        for counter, changes in self._changes:
            counter.value += changes
        return self._result.copied(self.graph)


class _Joined:
    """The tensors in a result, side by side in one block of memory: they are copied by one call.

    Raises CaptureError for a tensor that requires a gradient.
    """

    def __init__(self, result: Any) -> None:
        self._result, tensors = result, list(_tensors_in(result))
        # Of each tensor: the first byte, the one after the last, the dtype and the shape.
        self._forms: list[tuple[int, int, Any, tuple[int, ...]]] = []
        size = 0
        for tensor in tensors:
            _check_no_gradient("result", tensor)
            self._forms.append((size, size + tensor.data.nbytes, tensor.dtype, tensor.shape))
            size += -(-tensor.data.nbytes // ALIGNMENT) * ALIGNMENT
        if not tensors:
            return
        self._backend = tensors[0].backend
        self._block = self._backend.xp.empty(size, "uint8")
        for tensor, part in zip(tensors, self._parts(self._block), strict=True):
            part[...] = tensor.data

    def _parts(self, block: Array) -> list[Array]:
        """Return the arrays of the tensors in a block."""
        return [
            block[start:stop].view(dtype).reshape(shape)  # (shape)
            for start, stop, dtype, shape in self._forms
        ]

    def copied(self, graph: Graph) -> Any:
        """Return the result with tensors of its own."""
        if not self._forms:
            return self._result
        parts = iter(self._parts(graph.copied(self._block)))
        return _mapped(lambda _: Tensor(next(parts), backend=self._backend), self._result)


# -- arguments and results -------------------------------------------------------------------------------


def _setting(backend: Backend, given: tuple[Any, ...], names: Iterable[str]) -> Hashable:
    """Return all that a call has in common with the others that a capture serves, but for modules' modes."""
    values = tuple([_kind_of(value) for value in given])
    return values, tuple(names), is_grad_enabled(), backend.allows_tf32


def _kind_of(value: Any) -> Hashable:
    """Return all of an argument that a capture depends on. Raises TypeError if it is not hashable."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype, value.device
    try:
        hash(value)
    except TypeError:
        raise _no_argument(value) from None
    if isinstance(value, tuple | frozenset) and any(isinstance(v, Tensor) for v in value):
        raise _no_argument(value)
    return type(value), value


def _no_argument(value: Any) -> TypeError:
    return TypeError(
        f"capture: expected tensors and hashable values as arguments, got {type(value).__name__}: pass its "
        "tensors one by one, or let the step hold it"
    )


def _own_argument(value: Any) -> Any:
    """Return a copy of a tensor, into which later ones are copied; all else as it is."""
    if not isinstance(value, Tensor):
        return value
    _check_no_gradient("argument", value)
    return Tensor(value.backend.copy(value.data), backend=value.backend)  # in its memory order


def _check_no_gradient(what: str, tensor: Tensor) -> None:
    if tensor.requires_grad:
        raise CaptureError(
            f"capture: expected no {what} that requires a gradient, got one of shape {tensor.shape}: call "
            "backward in the step, and detach() what goes in or out"
        )


def _tensors_in(value: Any) -> Iterator[Tensor]:
    """Iterate over the tensors in a result, in the order of `_mapped`."""
    found: list[Tensor] = []
    _mapped(found.append, value)
    return iter(found)


def _mapped(change: Callable[[Tensor], Any], value: Any) -> Any:
    """Return a result with each tensor in it changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(change, part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        parts = [_mapped(change, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)  # a named tuple
    if is_dataclass(value) and not isinstance(value, type):
        made = copy.copy(value)
        for field in fields(value):
            object.__setattr__(made, field.name, _mapped(change, getattr(value, field.name)))
        return made
    return value


def _place_of(error: BaseException) -> str:
    """Return the name of the innermost operation that an exception went through; "" for none."""
    found = ""
    while error.__cause__ is not None:
        error = error.__cause__
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, Operation):
            found = f"{owner.name}: "
        elif isinstance(owner, Tensor):
            found = f"Tensor.{frame.f_code.co_name}: "
        elif isinstance(owner, Optimizer):
            found = f"{type(owner).__name__}.{frame.f_code.co_name}: "
        elif frame.f_globals["__name__"] == creation.__name__:
            found = f"minigrad.{frame.f_code.co_name}: "
    return found
