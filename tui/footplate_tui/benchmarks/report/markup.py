"""HTML and SVG as nested calls; all text is escaped here, and nowhere else. Pure."""

from html import escape

from footplate_tui.harmless import harmless


class Markup(str):
    """Text that is markup already; everything else that is put into an element is escaped."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: object) -> Markup:
    """Give `<name …>children</name>`; `class_` is `class`, `stroke_width` `stroke-width`; None is none."""
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(harmless(_shown(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = joined(*children)
    if not inner and name in _EMPTY:
        return Markup(f"<{name}{told}/>")
    return Markup(f"<{name}{told}>{inner}</{name}>")


def joined(*children: str) -> Markup:
    """Give several things after each other, escaped where they are not markup."""
    return Markup("".join(each if isinstance(each, Markup) else escape(harmless(each)) for each in children))


def table(heads: list[str], rows: list[list[str]], **attributes: object) -> Markup:
    """Give a table that scrolls by itself where the page is narrow."""
    head = element("tr", *(element("th", each, scope="col") for each in heads))
    body = (element("tr", *(element("td", each) for each in row)) for row in rows)
    shown = element("table", element("thead", head), element("tbody", *body), **attributes)
    return element("div", shown, class_="scrolls")


_EMPTY = frozenset({"meta", "line", "circle", "rect", "path", "polyline", "br", "hr"})


def _shown(value: object) -> str:
    """Give a number without the digits that nobody sees."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
