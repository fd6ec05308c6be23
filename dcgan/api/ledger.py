"""`dcgan.ledger`: one step of a recipe, watched."""

import minigrad as mg

from ..describe import step
from ..describe.step import Ledger
from ..recipe.preset import Preset
from .fit import find
from .images import PathLike


def ledger(recipe: str | PathLike | Preset) -> Ledger:
    """Return what happens in one step of a recipe: as text by `str()`, and as a table in a notebook.

    The step runs on a few random images. The engine's random state is left as it was.

        >>> import dcgan
        >>> dcgan.ledger("quick")
        <Ledger of quick: 13 events of one step>

    Args:
        recipe: a preset's name, a .toml or .json file, "FILE.py:NAME", or a `Preset`.

    Raises UserError if there is no such recipe, or its layers do not fit together.
    """
    with mg.random.isolated():
        return step.ledger(find(recipe))
