"""Names of layers, for those who watch operations run."""

from collections.abc import Mapping
from typing import Any

from ..nn import Module

Networks = Module | Mapping[str, Module] | None


class Names:
    """Names of layers: of a module by its place in the networks, and its description.

    Args:
        networks: by name; or one without a name, or none. TypeError for anything else.

    Attributes:
        networks: by name.
    """

    def __init__(self, networks: Networks) -> None:
        networks = {"": networks} if isinstance(networks, Module) else {} if networks is None else networks
        given = networks.values() if isinstance(networks, Mapping) else [networks]
        for each in given:
            if not isinstance(each, Module):
                raise TypeError(
                    "expected a layer or a network of minigrad.nn, or a dict of some by name, "
                    f"got {type(each).__name__}: pass the module itself, not its parameters"
                )
        self.networks = networks  # kept, so that no other module takes an id
        self._by_id: dict[int, str] = {}
        self._of_parameters: dict[int, tuple[str, str]] = {}  # network, layer
        for network, root in networks.items():
            for path, module in root.named_modules():
                name = ".".join(part for part in (network, path) if part)
                self._by_id[id(module)] = f"{name} {module.describe()}".strip()
                for parameter in vars(module).values():
                    self._of_parameters.setdefault(id(parameter), (network, self._by_id[id(module)]))

    def of(self, modules: list[Any]) -> str:
        """The innermost of the modules that has a name."""
        return next((self._by_id[id(m)] for m in reversed(modules) if id(m) in self._by_id), "")

    def of_parameter(self, parameter: Any) -> str:
        """The layer that has the parameter, "" for none."""
        return self._of_parameters.get(id(parameter), ("", ""))[1]

    def of_optimizer(self, optimizer: Any) -> str:
        """The network whose parameters the optimizer moves; "" for none, or where several share it."""
        networks = {self._of_parameters.get(id(p), ("", ""))[0] for p in optimizer.params}
        return networks.pop() if len(networks) == 1 else ""
