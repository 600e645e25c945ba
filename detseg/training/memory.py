"""Out of memory, in words that say what to do; and the largest batch that memory holds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from detseg.errors import DetsegError
from detseg.training.config import TrainConfig

SPARE = 0.2  # of the memory, which frames full of objects may need
MOST = 1024
_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "Cannot allocate memory")


class OutOfMemory(DetsegError):
    """A step needs more memory than there is."""


@contextmanager
def telling_of_memory(config: TrainConfig) -> Iterator[None]:
    """Turns what torch and Python raise for want of memory into OutOfMemory, with the next step."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if "DataLoader worker" in str(error) and "killed by signal" in str(error):
            raise OutOfMemory(
                f"one of the {config.workers} processes that make training frames was killed, as happens when memory "
                "runs out; fewer --workers need less"
            ) from error
        if not is_want_of_memory(error):
            raise
        raise OutOfMemory(_remedy(config)) from error


def is_want_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or beside it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def _remedy(config: TrainConfig) -> str:
    ways = []
    if config.batch > 1:
        half, more = config.batch // 2, config.accumulate * 2
        ways.append(f"--batch {half} --accumulate {more} (as many pictures a step)")
    ways.append(f"--imgsz below {config.imgsz}")
    if config.precision == "32-true":
        ways.append("--precision bf16-mixed")
    return (
        f"out of memory with batches of {config.batch} at {config.imgsz} pixels; less is needed with "
        f"{', or '.join(ways)}. A run that was begun goes on so with --resume and --force"
    )


def largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest of 1 .. `most` that fits, where all below one that fits do; 0 where none does."""
    good, bad = 0, most + 1
    trial = 1
    while good + 1 < bad:
        if fits(trial):
            good = trial
        else:
            bad = trial
        trial = min(2 * good, most) if bad > most else (good + bad) // 2
    return good


def largest_batch(model: nn.Module, step: Callable[[nn.Module, int], Any], device: torch.device, pictures: int) -> int:
    """How many pictures a `step(model, count)` can have on a GPU, at most `pictures`, with 20 % of memory to spare.

    Steps are done for real, on copies of the model. Raises OutOfMemory where not even one picture fits.
    """
    limit = (1 - SPARE) * torch.cuda.get_device_properties(device).total_memory

    def fits(count: int) -> bool:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        try:
            step(copy.deepcopy(model).to(device), count)
        except (RuntimeError, MemoryError) as error:
            if not is_want_of_memory(error):
                raise
            return False
        return torch.cuda.max_memory_reserved(device) <= limit

    found = largest(fits, min(pictures, MOST))
    torch.cuda.empty_cache()
    if not found:
        raise OutOfMemory("not even one picture fits into the GPU's memory; choose a smaller --imgsz or model")
    return found
