"""The table of what is right at special values; `ROWS` are all of its rows."""

from . import arithmetic, functions, losses, masks, moves, normalization, products, reductions

TABLES = (arithmetic, functions, masks, moves, reductions, products, normalization, losses)
ROWS = [row for table in TABLES for row in table.ROWS]
