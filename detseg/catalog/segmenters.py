"""The segmenters one can train, by name: a model file and the options that make it what it is."""

from __future__ import annotations

from detseg.catalog.entry import Entry

SEGMENTERS: tuple[Entry, ...] = ()
