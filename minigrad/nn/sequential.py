"""Modules one after another, and which of them a layer takes along into its own pass over memory."""

from collections.abc import Iterator, Sequence
from typing import Any, overload

from ..backend.epilogue import NO_EPILOGUE, Epilogue
from ..tensor import Tensor
from .module import Module


class Sequential(Module):
    """Modules one after another; each is named by its place, "0", "1", ...

    `model[i]` is one of them, and `model[i:j]` a Sequential of some of them: the same modules, not copies.
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__()
        for i, module in enumerate(modules):
            if not isinstance(module, Module):
                raise TypeError(f"Sequential: expected modules, got {_other_module(module)} at {i}")
            setattr(self, str(i), module)

    def forward(self, x: Tensor) -> Tensor:
        modules = list(self)
        while modules:
            module = modules.pop(0)
            followers, epilogue = _joined(module, modules)
            del modules[: len(followers)]
            x = module(x, epilogue) if followers else module(x)
        return x

    def __iter__(self) -> Iterator[Module]:
        return (module for _, module in self.children())

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> "Sequential": ...
    def __getitem__(self, index: int | slice) -> Module:
        found = list(self)[index]
        return Sequential(*found) if isinstance(found, list) else found


def _other_module(given: Any) -> str:
    """Describe a value that is no module, with the remedy if there is one, for a message."""
    name = type(given).__name__
    if isinstance(given, list | tuple):
        return f"{name} (pass the modules one by one: Sequential(*modules))"
    if isinstance(given, type) and issubclass(given, Module):
        return f"the class {given.__name__} (pass an instance, {given.__name__}(...))"
    return name


def taken_along(module: Module, following: Sequence[Module]) -> list[Module]:
    """Return the modules, of those that follow, which a layer takes into its own pass over memory: an
    activation, a dropout, or a dropout behind an activation.

    A subclass with a `forward` of its own is not taken along, and takes no other, unless it says so itself.
    """
    return _joined(module, following)[0]


def _joined(module: Module, following: Sequence[Module]) -> tuple[list[Module], Epilogue]:
    """Return the modules that a layer takes along, and as one epilogue what they do."""
    taken: list[Module] = []
    epilogue = NO_EPILOGUE
    if not module.takes or not _speaks_for_itself(module, "takes"):
        return taken, epilogue
    for follower in following:
        own = follower.as_epilogue() if _speaks_for_itself(follower, "as_epilogue") else None
        both = None if own is None else epilogue.then(own)
        if both is None or not all(part in module.takes for part in both.parts):
            break
        epilogue = both
        taken.append(follower)
    return taken, epilogue


def _speaks_for_itself(module: Module, attribute: str) -> bool:
    """Whether the class that defines `forward` has the attribute too, and no hook wants what is between."""
    if module.forward_hooks or module.backward_hooks or "forward" in vars(module):
        return False
    for cls in type(module).__mro__:
        if "forward" in vars(cls):
            return attribute in vars(cls)
    return False
