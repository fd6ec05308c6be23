"""Tables in text."""

import pytest

from minigrad.tables import in_bytes, table, table_row

ROWS = [("name", "count", "", "note"), ("a", "1,234,567", "x", ""), ("long one", "0", "", "seen")]


@pytest.mark.parametrize(
    ("align", "expected"),
    [
        (
            "<>><",
            "name          count     note\na         1,234,567  x\nlong one          0     seen",
        ),
        (
            "<",
            "name      count         note\na         1,234,567  x\nlong one  0             seen",
        ),
        (
            "<>",
            "name          count     note\na         1,234,567  x\nlong one          0     seen",
        ),
        (
            ">",
            "    name      count     note\n       a  1,234,567  x\nlong one          0     seen",
        ),
    ],
)
def test_columns_are_as_wide_as_their_longest_cells(align, expected):
    assert table(ROWS, align) == expected


def test_a_row_keeps_to_the_widths_that_it_is_given():
    assert table_row(("a", "1", "b"), (3, 4, 2), "<>") == "a       1   b"
    assert table_row(("a", "longer", "b"), (3, 4, 2), "<><") == "a    longer  b"


def test_rows_of_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="zip"):
        table([("a", "b"), ("c",)], "<")
    with pytest.raises(ValueError, match="zip"):
        table([("a", "b")], "<<<")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.977 KiB"),
        (1024, "1.00 KiB"),
        (10 * 2**20, "10.0 MiB"),
        (500 * 2**30, "500 GiB"),
        (5000 * 2**30, "5.00e+03 GiB"),
    ],
)
def test_bytes_have_three_digits(count, text):
    assert in_bytes(count) == text
