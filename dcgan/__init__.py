"""dcgan: deep convolutional GANs of well-known tutorials, trained on the engine `minigrad`.

    import dcgan

    run = dcgan.fit("quick", images, steps=800)  # an array, a folder, a file or a name
    run = dcgan.load("runs/quick")
    run.sample(64, seed=3).grid().save("grid.png")

Names are imported when they are first used, so that `import dcgan` takes no time.
"""

from importlib import import_module
from typing import Any

# Each public name, and the module that has it.
_MODULES = {
    "fit": "dcgan.api.fit",
    "load": "dcgan.api.run",
    "ledger": "dcgan.api.ledger",
    "Animation": "dcgan.api.images",
    "Callback": "dcgan.api.training",
    "Evaluation": "dcgan.evaluation.show",
    "Images": "dcgan.api.images",
    "Ledger": "dcgan.describe.step",
    "Metrics": "dcgan.run.logs",
    "Picture": "dcgan.api.images",
    "Preset": "dcgan.recipe.preset",
    "Report": "dcgan.api.run",
    "Run": "dcgan.api.run",
    "RunDiverged": "dcgan.api.training",
    "TrainingState": "dcgan.api.training",
    "UserError": "dcgan.errors",
    "Vitals": "dcgan.run.logs",
    "__version__": "minigrad",
}
_SUBMODULES = ("models", "plugins", "presets")

__all__ = [*_MODULES, *_SUBMODULES]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"dcgan.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module 'dcgan' has no attribute {name!r}")
    found = getattr(import_module(_MODULES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
