"""The recipes in a table."""

from minigrad import tables

from .. import models, presets

COLUMNS = ("preset", "images", "batch", "epochs", "parameters of G", "of D", "what it is")


def recipes() -> str:
    """Every recipe in a line: its sizes, its parameter counts, and what it is."""
    rows: list[tuple[str, ...]] = [COLUMNS]
    for preset in presets.PRESETS.values():
        size = f"{preset.image_size} x {preset.image_size} {'RGB' if preset.channels == 3 else 'grey'}"
        counts = (f"{models.count_parameters(network):,}" for network in models.build(preset))
        rows.append((preset.name, size, str(preset.batch_size), str(preset.epochs), *counts, preset.summary))
    return tables.table(rows, "<<>>>><")
