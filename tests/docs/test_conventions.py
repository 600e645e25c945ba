"""The examples of CONVENTIONS.md run, from top to bottom, as they stand there."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "detseg" / "CONVENTIONS.md"


def test_the_examples_of_the_conventions_run(tmp_path, monkeypatch):
    text = PAGE.read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 8
    assert all(block.startswith(">>> ") for block in blocks)
    # everything else becomes blank lines, so that a failure names the line of the page
    page = re.sub(r"(?:\A|```\n)(?:.*?)(?:```python\n|\Z)", lambda m: "\n" * m[0].count("\n"), text, flags=re.DOTALL)
    example = doctest.DocTestParser().get_doctest(page, {}, PAGE.name, str(PAGE), 0)
    assert len(example.examples) > 40
    monkeypatch.chdir(tmp_path)
    report: list[str] = []
    outcome = doctest.DocTestRunner(verbose=False).run(example, out=report.append)
    assert outcome.failed == 0, "".join(report)
