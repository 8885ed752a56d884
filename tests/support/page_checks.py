"""What can be told of a page from its markup: who reads it with a screen reader needs all of it.

`findings` is a checker of its own, with its own negative tests: a tree of the elements, and a list
of rules over it.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = frozenset({"meta", "link", "input", "br", "hr", "img"})
HEADING = re.compile(r"h([1-6])")


@dataclass(eq=False)
class Node:
    tag: str
    attributes: dict[str, str]
    parent: "Node | None" = None
    children: list["Node | str"] = field(default_factory=list)

    def walk(self) -> Iterator["Node"]:
        """The elements below, in order."""
        for child in self.children:
            if isinstance(child, Node):
                yield child
                yield from child.walk()

    def all(self, *tags: str) -> list["Node"]:
        return [node for node in self.walk() if node.tag in tags]

    def with_class(self, name: str) -> list["Node"]:
        return [node for node in self.walk() if name in node.get("class").split()]

    def get(self, name: str) -> str:
        return self.attributes.get(name, "")

    @property
    def text(self) -> str:
        parts = [each if isinstance(each, str) else each.text for each in self.children]
        return " ".join("".join(parts).split())


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = self.at = Node("", {})

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs}, self.at)
        self.at.children.append(node)
        if tag not in VOID:
            self.at = node

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs}, self.at)
        self.at.children.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.at.tag == tag, f"</{tag}> closes <{self.at.tag}>"
        assert self.at.parent is not None
        self.at = self.at.parent

    def handle_data(self, data: str) -> None:
        self.at.children.append(data)


def parsed_page(page: bytes | str) -> Node:
    """The page's tree; elements that are not closed in order fail."""
    parser = _Parser()
    parser.feed(page if isinstance(page, str) else page.decode())
    parser.close()
    assert parser.at is parser.root, f"<{parser.at.tag}> is not closed"
    return parser.root


def findings(page: bytes | str) -> list[str]:
    """What is wrong with it; empty for a page that passes."""
    root = parsed_page(page)
    return [finding for rule in RULES for finding in rule(root)]


def _document(root: Node) -> Iterator[str]:
    (html,) = root.all("html")
    if not html.get("lang"):
        yield "html has no lang"
    if [
        len(each.text) > 0
        for each in html.all("title")
        if each.parent and each.parent.tag == "head"
    ] != [True]:
        yield "the document has no one title"
    if not any(each.get("name") == "viewport" for each in root.all("meta")):
        yield "no viewport"


def _landmarks(root: Node) -> Iterator[str]:
    for tag in ("main", "header", "footer"):
        if len(root.all(tag)) != 1:
            yield f"not one {tag}"
    names = [each.get("aria-label") for each in root.all("nav")]
    if not all(names) or len(set(names)) < len(names):
        yield "navs without names of their own"
    targets = {node.get("id") for node in root.walk()}
    if not any(a.get("href").removeprefix("#") in targets for a in root.with_class("skip")):
        yield "no link that skips to the content"


def _headings(root: Node) -> Iterator[str]:
    levels = [int(match[1]) for node in root.walk() if (match := HEADING.fullmatch(node.tag))]
    if levels.count(1) != 1 or levels[0] != 1:
        yield "not one h1, at the beginning"
    if any(later > earlier + 1 for earlier, later in itertools.pairwise(levels)):
        yield f"headings leave out a level: {levels}"
    if any(not node.text for node in root.walk() if HEADING.fullmatch(node.tag)):
        yield "an empty heading"


def _tables(root: Node) -> Iterator[str]:
    for table in root.all("table"):
        if [bool(each.text) for each in table.all("caption")] != [True]:
            yield "a table without caption"
        if any(th.get("scope") not in ("col", "row") for th in table.all("th")):
            yield "a header cell without scope"
        if not any(th.get("scope") == "col" for th in table.all("th")):
            yield "a table without column headers"
        widths = {len([c for c in tr.children if isinstance(c, Node)]) for tr in table.all("tr")}
        if len(widths) != 1:
            yield f"rows of different lengths: {widths}"
        if any(not th.text for th in table.all("th")):
            yield "an empty header cell"


def _fields(root: Node) -> Iterator[str]:
    labelled = {label.get("for") for label in root.all("label") if label.text}
    for each in root.all("input", "select", "textarea"):
        if each.get("type") != "hidden" and each.get("id") not in labelled:
            yield f"no label for {each.get('name')}"
    if any(not button.text for button in root.all("button")):
        yield "a button without text"


def _plots(root: Node) -> Iterator[str]:
    ids = {node.get("id"): node for node in root.walk() if node.get("id")}
    for svg in root.all("svg"):
        names = svg.get("aria-labelledby").split()
        if svg.get("role") != "img" or not names or any(not ids[n].text for n in names if n in ids):
            yield "a plot that is no named image"
        if any(name not in ids for name in names):
            yield "a plot named by what is not there"
        if svg.parent is None or svg.parent.tag != "figure" or not svg.parent.all("figcaption"):
            yield "a plot without caption"
    if root.all("svg") and not root.all("table"):
        yield "a plot without its table"


def _links(root: Node) -> Iterator[str]:
    if any(not a.text or not a.get("href") for a in root.all("a")):
        yield "a link without text or target"
    ids = [node.get("id") for node in root.walk() if node.get("id")]
    if len(set(ids)) < len(ids):
        yield "an id given twice"
    for region in root.with_class("scroll"):
        if region.get("tabindex") != "0" or region.get("aria-labelledby") not in ids:
            yield "what scrolls cannot be reached or has no name"


def _policy(root: Node) -> Iterator[str]:
    """What the Content-Security-Policy forbids."""
    for tag in ("script", "img", "link", "iframe", "object", "embed"):
        if root.all(tag):
            yield f"<{tag}> is there"
    for node in root.walk():
        if "style" in node.attributes or any(name.startswith("on") for name in node.attributes):
            yield f"<{node.tag}> has style or a handler of its own"
        if any(
            value.strip().lower().startswith("javascript:") for value in node.attributes.values()
        ):
            yield f"<{node.tag}> has a script"


RULES: tuple[Callable[[Node], Iterator[str]], ...] = (
    *(_document, _landmarks, _headings, _tables, _fields, _plots, _links, _policy),
)


def contrast(one: str, other: str) -> float:
    """WCAG 2.2: of two colours like #1a2b3c or #fff, 1 to 21."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
