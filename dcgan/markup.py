"""Parts of pages as HTML, on top of `minigrad.markup`."""

import base64
from collections.abc import Iterable

from minigrad.markup import Markup, paragraph, tag, text

__all__ = ["Markup", "joined", "paragraph", "png_url", "section", "table", "tag", "text"]


def joined(parts: Iterable[object], between: str = "\n") -> Markup:
    """Parts one after another."""
    return Markup(text(between).join(map(text, parts)))


def section(name: str, title: str, *content: object) -> Markup:
    """A part of the page, with its title, that `#name` leads to."""
    return tag("section", tag("h2", title), *content, id=name)


def table(
    heads: Iterable[object],
    rows: Iterable[Iterable[object]],
    name: str,
    caption: str = "",
    style: str | None = None,
) -> Markup:
    """A table; the first cell of each row names it. Wide ones scroll by themselves.

    Args:
        name: of the table, for those who hear the page; `caption` is seen.
        style: of the caption and of each cell, for pages that may lose their style sheet.
    """
    top = tag("tr", *(tag("th", head, scope="col", style=style) for head in heads))
    body = (
        tag(
            "tr", tag("th", first, scope="row", style=style), *(tag("td", cell, style=style) for cell in rest)
        )
        for first, *rest in rows
    )
    said = [tag("caption", caption, style=style)] if caption else []
    return tag(
        "div",
        tag("table", *said, tag("thead", top), tag("tbody", *body)),
        class_="wide",
        tabindex=0,
        role="region",
        aria_label=name,
    )


def png_url(content: bytes) -> str:
    """Return the content of a PNG file as the address of a picture."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
