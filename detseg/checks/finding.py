"""`Finding`: one thing wrong with a data set; `Findings`: all of them, each once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detseg.annotations import Fault
from detseg.checks.kinds import SEVERITIES, Severity, kind_of


@dataclass(frozen=True)
class Finding:
    """What is wrong, where, how bad it is and what helps.

    `annotation`: the data set's own annotation id, the object's place in its file, or the line. `other`: the
    second file of a pair. `count`: how many things one finding speaks of.
    """

    severity: Severity
    kind: str
    file: str
    message: str
    remedy: str
    annotation: int | None = None
    split: str | None = None
    other: str | None = None
    count: int = 1

    def __str__(self) -> str:
        where = self.file if self.annotation is None else f"{self.file}, annotation {self.annotation}"
        return f"{where}: {self.message}"

    def to_json(self) -> dict[str, Any]:
        """A dict for `--json`; what is not known is left out."""
        optional = {"annotation": self.annotation, "split": self.split, "other": self.other}
        return {
            "severity": self.severity,
            "kind": self.kind,
            "file": self.file,
            **{key: value for key, value in optional.items() if value is not None},
            "message": self.message,
            "remedy": self.remedy,
            "count": self.count,
        }


class Findings:
    """A growing collection in which nothing stands twice: splits may share pictures."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str, int | None, str], Finding] = {}

    def add(
        self,
        kind: str,
        file: str | Path,
        message: str,
        annotation: int | None = None,
        *,
        split: str | None = None,
        other: str | Path | None = None,
        count: int = 1,
    ) -> None:
        """Records one; how bad it is and what helps is the kind's."""
        about = kind_of(kind)
        second = None if other is None else str(other)
        finding = Finding(
            about.severity, kind, str(file), message, about.remedy, _number(annotation), split, second, count
        )
        self._seen.setdefault((kind, str(file), finding.annotation, message), finding)

    def add_faults(self, faults: Iterable[Fault], split: str | None) -> None:
        """What a reader found."""
        for fault in faults:
            self.add(fault.kind, fault.file, fault.message, fault.annotation, split=split)

    def sorted(self) -> tuple[Finding, ...]:
        """Errors first; then by kind, file and annotation."""

        def place(finding: Finding) -> tuple[int, str, str, int]:
            return SEVERITIES.index(finding.severity), finding.kind, finding.file, finding.annotation or 0

        return tuple(sorted(self._seen.values(), key=place))


@dataclass(frozen=True)
class Report:
    """What a check found. `splits` names the parts that were looked at; `decoded`: pictures were read in full."""

    data: str
    format: str
    splits: tuple[str, ...]
    pictures: int
    objects: int
    label_maps: int
    decoded: bool
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """How many findings are that bad."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def by_kind(self) -> dict[tuple[Severity, str], int]:
        """(severity, kind) -> how many findings, errors first, the most frequent first."""
        counts = Counter((f.severity, f.kind) for f in self.findings)
        order = sorted(counts, key=lambda key: (SEVERITIES.index(key[0]), -counts[key], key[1]))
        return {key: counts[key] for key in order}

    def to_json(self) -> dict[str, Any]:
        """Everything, for `--json`."""
        return {
            "data": self.data,
            "format": self.format,
            "splits": list(self.splits),
            "pictures": self.pictures,
            "objects": self.objects,
            "label_maps": self.label_maps,
            "decoded": self.decoded,
            **{f"{severity}s": self.count(severity) for severity in SEVERITIES},
            "by_kind": [{"severity": s, "kind": k, "count": n} for (s, k), n in self.by_kind.items()],
            "findings": [finding.to_json() for finding in self.findings],
        }


def _number(value: int | None) -> int | None:
    return None if value is None else int(value)  # readers may give numpy's
