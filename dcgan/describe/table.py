"""The recipes in a table."""

from .. import models, presets

COLUMNS = ("preset", "images", "batch", "epochs", "parameters of G", "of D", "what it is")


def table() -> str:
    """Every recipe in a line: its sizes, its parameter counts, and what it is."""
    rows: list[tuple[str, ...]] = [COLUMNS]
    for preset in presets.PRESETS.values():
        size = f"{preset.image_size} x {preset.image_size} {'RGB' if preset.channels == 3 else 'grey'}"
        counts = (f"{models.count_parameters(network):,}" for network in models.build(preset))
        rows.append((preset.name, size, str(preset.batch_size), str(preset.epochs), *counts, preset.summary))
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if 2 <= i <= 5 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
