"""What every test shares: quiet, reproducible settings and the folder of real data."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import settings

# Before anything imports numpy, cv2 or torch. Workers share the cores, so each computes in one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

# Slow machines are no defect, and a failure seen once is seen again.
settings.register_profile("detseg", deadline=None, derandomize=True)
settings.load_profile("detseg")

REPOSITORY = Path(__file__).resolve().parent.parent
DEFAULT_DATA = Path.home() / ".cache" / "detseg-data"


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the real data sets; skips, saying why, where there is none.

    DETSEG_DATA names it, else it is ~/.cache/detseg-data, filled once from the data beside the checkout.
    """
    named = os.environ.get("DETSEG_DATA")
    if named:
        folder = Path(named).expanduser()
        if not folder.is_dir():
            pytest.skip(f"DETSEG_DATA names {folder}, which is not a folder")
        return folder
    unpack = REPOSITORY.parent / "shared" / "data" / "unpack"  # data beside the checkout
    if os.access(unpack, os.X_OK):  # quick when everything is there already, safe when several workers call it
        subprocess.run([unpack, DEFAULT_DATA], check=True, capture_output=True, timeout=300)
    if not DEFAULT_DATA.is_dir():
        pytest.skip(f"no real data: set DETSEG_DATA to their folder or put them in {DEFAULT_DATA}")
    return DEFAULT_DATA
