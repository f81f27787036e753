"""Reads a report as a browser would, strictly, and tells what does not belong into one."""

from __future__ import annotations

import re
import unicodedata
from base64 import b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from html.parser import HTMLParser


def _words(text: str) -> set[str]:
    return set(text.split())


VOID = {"meta", "rect", "path"}
"""Elements that nothing closes; of these SVG's close themselves."""

TAGS = VOID | _words(
    "html head title style body header nav main section h1 h2 p ul li a dl div dt dd figure "
    "figcaption span svg table caption thead tbody tr th td"
)
ATTRIBUTES = _words(
    "lang charset http-equiv content name href id class aria-labelledby aria-label "
    "aria-hidden role tabindex scope viewbox preserveaspectratio width height x d"
)
_POLICY = re.compile(
    r"default-src 'none'; style-src 'sha256-([^']+)'; base-uri 'none'; form-action 'none'"
)


@dataclass(slots=True)
class _Element:
    tag: str
    attributes: dict[str, str]
    text: list[str] = field(default_factory=list)


class Page(HTMLParser):
    """A parsed page; making one fails where it is not well-formed.

    Attributes:
        elements: All of them, each with the text directly or indirectly in it.
    """

    def __init__(self, raw: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[_Element] = []
        self._open: list[_Element] = []
        self._raw = raw.decode()
        self.feed(self._raw)
        self.close()
        assert not self._open, [element.tag for element in self._open]
        self._check()

    def handle_decl(self, decl: str) -> None:
        assert decl == "DOCTYPE html"
        assert not self.elements

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        element = _Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID, tag
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag, tag

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text.append(data)

    def of(self, tag: str) -> list[_Element]:
        """All elements of one kind."""
        return [element for element in self.elements if element.tag == tag]

    @property
    def text(self) -> str:
        """What one reads in it."""
        (body,) = self.of("body")
        return "".join(body.text)

    def rows(self, caption: str) -> list[list[str]]:
        """The cells of the table whose caption begins so, without its heads."""
        found: list[list[str]] = []
        inside = False
        for element in self.elements:
            text = "".join(element.text)
            if element.tag == "caption":
                inside = text.startswith(caption)
            elif inside and element.tag == "tr":
                found.append([])
            elif inside and element.tag in {"td", "th"}:
                found[-1].append(text)
        assert found, caption
        return found[1:]

    def _check(self) -> None:
        """See that it loads nothing, runs nothing, and can be read by everybody."""
        assert {element.tag for element in self.elements} <= TAGS
        names = {name for element in self.elements for name in element.attributes}
        assert names <= ATTRIBUTES, names - ATTRIBUTES
        policies = [_POLICY.fullmatch(e.attributes.get("content", "")) for e in self.of("meta")]
        (policy,) = [found for found in policies if found]
        (style,) = self.of("style")
        digest = sha256("".join(style.text).encode()).digest()
        assert policy[1] == b64encode(digest).decode()
        assert "url(" not in "".join(style.text)
        assert "@import" not in "".join(style.text)
        ids = [e.attributes["id"] for e in self.elements if "id" in e.attributes]
        assert len(set(ids)) == len(ids)
        links = [e.attributes["href"] for e in self.elements if "href" in e.attributes]
        assert {link.removeprefix("#") for link in links} <= set(ids)
        assert all(link.startswith("#") for link in links)
        values = [value for e in self.elements for value in e.attributes.values()]
        assert not [value for value in values if "://" in value]
        assert all(
            unicodedata.category(char) not in {"Cc", "Cf", "Zl", "Zp"} or char == "\n"
            for char in self._raw
        )
        for svg in self.of("svg"):
            assert svg.attributes.get("aria-hidden") or svg.attributes["aria-label"]
        assert len(self.of("table")) == len(self.of("caption")) == len(self.of("thead"))
        assert all(head.attributes["scope"] for head in self.of("th"))
        assert self.of("html")[0].attributes["lang"] == "en"
