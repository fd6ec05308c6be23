"""The meaning of a pixel's numbers, by how many there are: one order and one naming for all files."""

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # Pillow's
NAMES = {1: "grey", 2: "grey with alpha", 3: "RGB", 4: "RGB with alpha"}


def size_in_words(size: int, channels: int) -> str:
    """Return the size of a square image of `size` pixels a side, such as "64 x 64 RGB"."""
    return f"{size} x {size} {NAMES[channels]}"


def conversion(given: int, wanted: int) -> str:
    """Return a description of the change from `given` to `wanted` channels; "" for no change."""
    if given == wanted:
        return ""
    steps = []
    if given in (2, 4) and wanted in (1, 3):
        steps.append("laid on white")
    if given >= 3 > wanted:
        steps.append("made grey (0.299 R + 0.587 G + 0.114 B)")
    if given < 3 <= wanted:
        steps.append("made RGB (three equal channels)")
    if given in (1, 3) and wanted in (2, 4):
        steps.append("given an opaque alpha")
    return ", ".join(steps)
