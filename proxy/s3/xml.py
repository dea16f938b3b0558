"""XML in and out: documents of bounded size without DTDs or entities are read; what is written is escaped.  Pure.

Control characters, which XML 1.0 cannot hold, are written as references, as S3 does; clients that want to be sure ask for
encoding-type=url.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException, ElementTree

from proxy.errors import BadRequest

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_UNSAFE = re.compile("[&<>\"'\x00-\x1f\x7f\ufffe\uffff]")
_NAMED = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;"}


def escape(value: str) -> str:
    return _UNSAFE.sub(lambda match: _NAMED.get(match[0]) or f"&#x{ord(match[0]):x};", value)


def text(name: str, value: object) -> str:
    return f"<{name}>{escape(str(value))}</{name}>"


def element(name: str, children: Iterable[str]) -> str:
    return f"<{name}>{''.join(children)}</{name}>"


def document(root: str, content: str, *, namespace: str = NAMESPACE) -> bytes:
    attribute = f' xmlns="{namespace}"' if namespace else ""
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{root}{attribute}>{content}</{root}>'.encode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Node:
    """An element that was read; namespaces are left off."""

    element: Element

    @property
    def name(self) -> str:
        return _local(self.element.tag)

    def children(self, name: str) -> list[Node]:
        return [Node(child) for child in self.element if _local(child.tag) == name]

    def text(self, name: str, default: str = "") -> str:
        """Of the first child of that name."""
        for child in self.element:
            if _local(child.tag) == name:
                return child.text or ""
        return default


def parse(data: bytes, root: str) -> Node:
    """A document whose root is ``root``.  BadRequest (MalformedXML)."""
    try:
        found = ElementTree.fromstring(data, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError):
        # LookupError: an encoding that there is not.
        raise malformed() from None
    node = Node(found)
    if node.name != root:
        raise malformed()
    return node


def malformed() -> BadRequest:
    return BadRequest(
        "The XML you provided was not well-formed or did not validate against our published schema", code="MalformedXML"
    )


def _local(tag: object) -> str:
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""
