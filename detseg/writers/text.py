"""Names of files and classes as text: in JSON, in CSV and XML, as names of folders."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def to_json(value: Any) -> bytes:
    r"""One line of JSON, UTF-8. A name that is not UTF-8 is escaped (\udce9), as Python reads it."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(", ", ": ")).encode()
    except UnicodeEncodeError:
        return json.dumps(value).encode()


def readable(text: str) -> str:
    r"""Text that can be written as UTF-8: bytes of a name that are not become \xe9, four plain letters."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a pair that stands for no byte
        return text.encode("utf-8", "backslashreplace").decode()


def to_xml(text: str) -> str:
    """Text inside an XML element. Control characters, which XML 1.0 cannot hold, become `\\x01`."""
    escaped = readable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = re.sub("[\t\n\r]", lambda found: f"&#{ord(found[0])};", escaped)
    return re.sub("[\0-\x1f\x7f\ufffe\uffff]", lambda found: found[0].encode("unicode_escape").decode(), escaped)


def folder_names(names: Sequence[str]) -> list[str]:
    """For each class name a folder name that every file system takes; all different, case aside."""
    folders: list[str] = []
    taken: set[str] = set()
    for name in names:
        safe = re.sub(r'[\0-\x1f\x7f/\\:*?"<>|]', "_", readable(name)).strip(" .")
        safe = safe.encode()[:100].decode(errors="ignore") or "_"
        if _RESERVED.fullmatch(safe):
            safe = f"_{safe}"
        folder, number = safe, 2
        while folder.casefold() in taken:
            folder, number = f"{safe}_{number}", number + 1
        taken.add(folder.casefold())
        folders.append(folder)
    return folders
