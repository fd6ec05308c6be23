"""Numbers in columns, for people."""

from collections.abc import Sequence


def columns(lines: Sequence[Sequence[str]], left: int) -> str:
    """Lines of cells in columns; the first `left` of them are aligned to the left, the others right."""
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    text = []
    for line in lines:
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  ".join(cells).rstrip())
    return "\n".join(text)


def in_bytes(count: int) -> str:
    """A number of bytes with three digits: "512 B", "49.0 KiB", "1.25 MiB"."""
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1000 or unit == "GiB":
            break
        size /= 1024
    return f"{count} B" if unit == "B" else f"{size:#.3g} {unit}".replace(". ", " ")
