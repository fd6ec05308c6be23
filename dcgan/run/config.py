"""How a run is trained: the content of its config.json."""

import platform
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from .. import plugins
from ..data.scale import Range
from ..recipe.preset import Preset


@dataclass(frozen=True)
class RunConfig:
    """The recipe of a run, its images, and the device.

    Attributes:
        preset: the recipe.
        device: "cpu" or "gpu".
        data: the images, as --data names them.
        tf32: whether the factors of products are rounded to TensorFloat-32.
        graph: whether the steps are captured as one CUDA graph.
        value_range: the values of black and white in the images; None for images of 8 bits.
        kernels: which kernels the CPU uses, by `minigrad.backend.cpu_kernels`; None on a GPU.
        started_from: the checkpoint whose weights the run began with, and its step; None for fresh weights.
    """

    preset: Preset
    device: str
    data: str
    tf32: bool = False
    graph: bool = False
    value_range: Range | None = None
    kernels: str | None = None
    started_from: dict[str, str | int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the content of config.json, with the versions and the machine that train."""
        return {
            "preset": self.preset.to_json(),
            "data": self.data,
            "range": self.value_range,
            "device": self.device,
            "tf32": self.tf32,
            "graph": self.graph,
            "kernels": self.kernels,
            "plugins": [plugin.to_json() for plugin in plugins.of(self.preset, self.device)],
            "init_from": self.started_from,
            "versions": {name: metadata.version(name) for name in ("numpy", "safetensors")}
            | {"python": platform.python_version()},
            "machine": platform.platform(),
        }
