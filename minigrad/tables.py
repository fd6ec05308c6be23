"""Tables in text, numbers of bytes, and text that is safe to show, for people."""

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]], align: str) -> str:
    """Return rows of cells as lines, in columns as wide as their longest cells.

    Args:
        rows: the cells; each row has the same number of them.
        align: "<" for each column that is aligned to the left, ">" for each to the right. The last of these
            holds for all further columns.
    """
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return "\n".join(table_row(row, widths, align) for row in rows)


def table_row(cells: Sequence[str], widths: Sequence[int], align: str) -> str:
    """Return one line of a table, two spaces between columns of these widths; `align` as in `table`."""
    sides = align.ljust(len(widths), align[-1])
    padded = [
        cell.ljust(width) if side == "<" else cell.rjust(width)
        for cell, width, side in zip(cells, widths, sides, strict=True)
    ]
    return "  ".join(padded).rstrip()


def in_bytes(count: int) -> str:
    """Return a number of bytes with three digits: "512 B", "49.0 KiB", "1.25 MiB"."""
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1000 or unit == "GiB":
            break
        size /= 1024
    return f"{count} B" if unit == "B" else f"{size:#.3g} {unit}".replace(". ", " ")


def printable(text: str, keep: str = "\n\t") -> str:
    """Return the text with what would not be shown, or would move a terminal's cursor, written in escapes."""
    return "".join(c if c.isprintable() or c in keep else _escape(c) for c in text)


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
