"""The truth in memory that the worker processes share: they get a handle of each column, not a copy."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from detseg.annotations import AnnotationSet
from detseg.annotations.file_names import FileNames
from detseg.annotations.outlines import Outlines

_COLUMNS = ("image_ids", "image_hw", "starts", "boxes", "labels", "areas", "ids", "crowd", "difficult")


class SharedSet(AnnotationSet):
    """An `AnnotationSet` whose columns lie in shared memory, as long as it is the one that `share` made."""

    tensors: ClassVar[dict[str, Tensor]] = {}  # of the instance, once `share` set it; none after `subset`

    def __reduce__(self) -> Any:
        rest = {f.name: getattr(self, f.name) for f in fields(self)}
        if not self.tensors:
            return _plain, (rest,)
        for name in (*_COLUMNS, "image_files", "outlines", "faults"):
            rest.pop(name)  # faults are told before training; a worker has no use for them
        return _rebuilt, (rest, self.tensors)


def share(truth: AnnotationSet) -> SharedSet:
    """The same truth in shared memory; let go of the one given, otherwise there are two."""
    names = truth.image_files if isinstance(truth.image_files, FileNames) else FileNames(truth.image_files)
    arrays = {name: getattr(truth, name) for name in _COLUMNS}
    arrays |= {"names": names.pool, "name_ends": names.ends}
    arrays |= {"outlines": truth.outlines.pool, "spans": truth.outlines.spans}
    tensors = {name: torch.tensor(array).share_memory_() for name, array in arrays.items()}
    rest = {"root": truth.root, "format": truth.format, "categories": truth.categories, "faults": truth.faults}
    return _rebuilt(rest, tensors)


def _rebuilt(rest: dict[str, Any], tensors: dict[str, Tensor]) -> SharedSet:
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
    truth = SharedSet(
        **rest,
        **{name: arrays[name] for name in _COLUMNS},
        image_files=FileNames.of_pool(arrays["names"], arrays["name_ends"]),
        outlines=Outlines(arrays["outlines"], arrays["spans"]),
    )
    object.__setattr__(truth, "tensors", tensors)
    return truth


def _plain(values: dict[str, Any]) -> AnnotationSet:
    return AnnotationSet(**values)
