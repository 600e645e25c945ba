"""XML that others wrote, read safely and fast: no entities, no document types, nothing from outside."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, fromstring

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

ForbiddenXml = DefusedXmlException

# An encoding in which `<!` is other bytes could hide a declaration from a search
_ENCODING = re.compile(rb"""<\?xml[^>]*encoding\s*=\s*["']([^"']*)""")
_PLAIN = frozenset({b"utf-8", b"utf8", b"us-ascii", b"ascii", b"iso-8859-1", b"latin-1", b"windows-1252"})


def parse_xml(data: bytes) -> Element:
    """The root element. Raises ForbiddenXml for a file that declares entities, ElementTree's ParseError, ValueError
    or LookupError for one that is broken.

    Files without a declaration `<!`, in a plain encoding, go to the fast parser; the others to the one that checks.
    """
    encoding = _ENCODING.search(data.partition(b"?>")[0])
    if b"<!" not in data and b"\0" not in data and (encoding is None or encoding[1].lower() in _PLAIN):
        return fromstring(data)
    root: Element = defusedxml.ElementTree.fromstring(data)
    return root
