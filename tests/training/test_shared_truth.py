"""Worker processes see the truth itself, not a copy of it."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
from torch import multiprocessing

from detseg.annotations import load
from detseg.annotations.sample import write_sample
from detseg.training.shared_truth import share

# builtins and a module that any process has: the test's own module is not known there
KEEP = "import operator; operator.held = truth"
IN_WORKER = "__import__('operator').held.fingerprint()"


def test_a_worker_sees_what_changes_here(tmp_path: Path) -> None:
    truth = load(write_sample(tmp_path, images=4))
    shared = share(truth)
    assert shared.fingerprint() == truth.fingerprint()
    context = multiprocessing.get_context("forkserver")
    with context.Pool(1, initializer=exec, initargs=(KEEP, {"truth": shared})) as pool:
        before = pool.apply(eval, (IN_WORKER,))
        shared.boxes[0, 0] += 0.5
        after = pool.apply(eval, (IN_WORKER,))
    assert before == truth.fingerprint()
    assert after == shared.fingerprint() != before


def test_parts_and_copies_are_plain_sets(tmp_path: Path) -> None:
    truth = load(write_sample(tmp_path, images=4))
    part = share(truth).subset(np.array([1]))
    again = pickle.loads(pickle.dumps(part))
    assert again.fingerprint() == truth.subset(np.array([1])).fingerprint()
    assert list(again.image_files) == list(part.image_files)
