"""The base of all optimizers."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, ClassVar

from .. import observer
from ..backend.arrays import Array
from ..backend.ieee import ieee
from ..backend.tape import CaptureError, each_time, is_capturing
from ..tensor import Tensor
from .given import copied, counts, number, parameters, shown

Read = Callable[[str, Any], Any]


class Optimizer:
    """Base of the optimizers: parameters, a step count and state arrays for each, and hyperparameters.

    A subclass names its hyperparameters in `hyperparameters`, each with the function that reads a value, and
    gives them to `__init__`. They become attributes, which are checked whenever they are assigned:
    `optimizer.lr = 1e-4` is how a schedule sets the rate. It lists its state in `slots` and defines
    `_update(index, parameter, gradient)`, which changes arrays in place. Parameters whose `.grad` is None are
    left alone, state included. The parameters may lie on several devices; each one's state lies with it.

    A state goes into a file and back by

        mg.save(optimizer.state_dict(), "optimizer.safetensors")
        optimizer.load_state_dict(mg.load("optimizer.safetensors"))

    Args:
        params: the parameters: an iterable of tensors that require a gradient and were not computed.
        lr: the rate, 0 or more.
        weight_decay: 0 or more.
        others: the hyperparameters of the subclass.

    Raises TypeError or ValueError for anything else.
    """

    slots: tuple[str, ...] = ()
    # The hyperparameters that a captured step reads anew in each replay (by `Backend.from_host`); a change of
    # others needs a new capture. None: `_update` may read numbers of the step, and can't be captured.
    replayed: ClassVar[tuple[str, ...] | None] = None
    hyperparameters: ClassVar[dict[str, Read]] = {"lr": number, "weight_decay": number}
    lr: float
    weight_decay: float

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float, **others: Any) -> None:
        name = type(self).__name__
        self.params = parameters(name, params)
        # One count a parameter: where some had no gradient, their bias corrections lag behind.
        self.steps = [0] * len(self.params)
        self._rates: dict[Any, Array] = {}  # of the step that runs: see `_lr_for`
        values = self._checked(name, {"lr": lr, "weight_decay": weight_decay, **others})
        self._adopt(values, [{} for _ in self.params])

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.hyperparameters or "state" not in vars(self):
            super().__setattr__(name, value)
            return
        if is_capturing():
            raise CaptureError(
                f"{type(self).__name__}.{name} is set once in the capture and not in the replays: set it "
                "outside of the step, or by minigrad.each_time"
            )
        values = self._checked(type(self).__name__, {**self._values(), name: value})
        if self._slots(values) == self.slots:  # a schedule comes by here in every step
            super().__setattr__(name, values[name])
        else:
            self._adopt(values, self.state)

    def _values(self) -> dict[str, Any]:
        """Return the hyperparameters as they are now."""
        return {name: getattr(self, name) for name in self.hyperparameters}

    def fixed_values(self) -> dict[str, Any]:
        """Return the hyperparameters that a captured step holds fast: all but those in `replayed`."""
        return {name: value for name, value in self._values().items() if name not in (self.replayed or ())}

    def _checked(self, where: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return hyperparameters, all of them, as Python's numbers.

        Raises TypeError or ValueError, which begins with `where`, if one is of a wrong type or out of range.
        """
        read = {name: self.hyperparameters[name](f"{where}: {name}", value) for name, value in values.items()}
        wrong = self._out_of_range(read)
        if wrong:
            raise ValueError(f"{where}: {wrong}")
        return read

    def _out_of_range(self, values: Mapping[str, Any]) -> str:
        """Return what was expected of hyperparameters that are out of range, and "" where none is."""
        lr, weight_decay = values["lr"], values["weight_decay"]
        if lr >= 0 and weight_decay >= 0:
            return ""
        return f"expected lr and weight_decay >= 0, got {lr:g} and {weight_decay:g}"

    def _slots(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of the state arrays that these hyperparameters need."""
        return self.slots

    def _adopt(self, values: Mapping[str, Any], state: list[dict[str, Array]]) -> None:
        """Set the hyperparameters and the state; an array that a slot lacks starts at 0."""
        vars(self).update(values)
        self.slots = self._slots(values)
        self.state = [
            {slot: own[slot] if slot in own else p.backend.xp.zeros_like(p.data) for slot in self.slots}
            for p, own in zip(self.params, state, strict=True)
        ]

    def step(self) -> None:
        """Move every parameter that has a gradient."""
        with observer.notifying(self, observer.STEP):
            gradients = {i: p.grad.data for i, p in enumerate(self.params) if p.grad is not None}
            each_time(partial(self._count, list(gradients)))
            self._rates = {}
            with ieee():
                self._update_all(gradients)
            self._rates = {}
            for i in gradients:
                self.params[i].mark_changed()
        observer.notify_end(self, observer.STEP, (), ())

    def _count(self, places: list[int]) -> None:
        """Count a step of the parameters of these places."""
        for i in places:
            self.steps[i] += 1

    def _update_all(self, gradients: dict[int, Array]) -> None:
        """Move the parameters of these places along their gradients."""
        for i, gradient in gradients.items():
            self._update(i, self.params[i], gradient)

    def _update(self, index: int, p: Tensor, gradient: Array) -> None:
        raise NotImplementedError

    def _lr_for(self, p: Tensor) -> Array:
        """Return the rate as an array () on a parameter's device, which a captured step reads anew."""
        kind = p.backend, p.dtype
        if kind not in self._rates:
            self._rates[kind] = p.backend.from_host(lambda: self.lr, (), p.dtype)
        return self._rates[kind]

    def zero_grad(self) -> None:
        """Forget the gradients of the parameters."""
        for p in self.params:
            p.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return copies of all that `load_state_dict` needs, for `mg.save`, too.

        {"steps": counts by parameter, "lr": 0.001, ... the hyperparameters, as Python's numbers,
        "<slot>.<index>": state arrays as tensors}.
        """
        arrays = {
            f"{slot}.{i}": Tensor(array.copy(), backend=p.backend)
            for i, (p, state) in enumerate(zip(self.params, self.state, strict=True))
            for slot, array in state.items()
        }
        return {"steps": list(self.steps), **self._values(), **arrays}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave, or from what `mg.load` read of it.

        State arrays may be tensors or arrays, of any device; they are copied. The hyperparameters of `state`
        take the place of this optimizer's, a rate that a schedule had set among them. One that `state` lacks
        stays as it is: earlier versions kept none.

        Raises ValueError, having changed nothing, where a key is missing or unknown, a shape or dtype
        differs, or a hyperparameter or a count is of a wrong type or out of range.
        """
        try:
            values, steps, arrays = self._read(f"load_state_dict({type(self).__name__})", state)
        except TypeError as error:
            raise ValueError(str(error)) from None
        self.steps = steps
        self._adopt(values, arrays)

    def _read(
        self, where: str, state: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[int], list[dict[str, Array]]]:
        """Return the hyperparameters, the counts and copies of the arrays, on the parameters' devices."""
        if not isinstance(state, Mapping):
            raise TypeError(f"{where}: expected what state_dict or mg.load gives, got {shown(state)}")
        given = {name: value.numpy() if isinstance(value, Tensor) else value for name, value in state.items()}
        own = self._values()
        values = self._checked(where, {name: given.get(name, value) for name, value in own.items()})
        slots = self._slots(values)
        expected = {"steps", *(f"{slot}.{i}" for i in range(len(self.params)) for slot in slots)}
        missing, extra = sorted(expected - set(given)), sorted(set(given) - expected - set(own), key=str)
        if missing or extra:
            raise ValueError(f"{where}: missing {missing}, unexpected {extra}")
        arrays = [
            {slot: copied(f"{where}: {slot}.{i}", given[f"{slot}.{i}"], p) for slot in slots}
            for i, p in enumerate(self.params)
        ]
        return values, counts(where, given["steps"], len(self.params)), arrays
