"""The recipes in a table."""

from minigrad import tables

from .. import models, presets
from ..data.channels import size_in_words

COLUMNS = ("preset", "images", "batch", "epochs", "parameters of G", "of D", "what it is")


def recipes() -> str:
    """Every recipe in a line: its sizes, its parameter counts, and what it is."""
    rows: list[tuple[str, ...]] = [COLUMNS]
    for preset in presets.PRESETS.values():
        size = size_in_words(preset.image_size, preset.channels)
        counts = (f"{models.count_parameters(network):,}" for network in models.build(preset))
        rows.append((preset.name, size, str(preset.batch_size), str(preset.epochs), *counts, preset.summary))
    return tables.table(rows, "<<>>>><")
