"""Weight files: fetched with a check of their hash, read as data only, put in with a report of names."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from detseg import downloads
from detseg.downloads.transfer import Progress
from detseg.errors import WeightsError

_HASH = re.compile(r"-([0-9a-f]{8,})\.")  # published files carry the start of their SHA-256 in the name


def cache_folder() -> Path:
    """Where downloaded weights lie: torch's own folder (TORCH_HOME moves it), shared with torchvision."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def fetch(url: str, *, progress: Progress | None = None) -> Path:
    """The file behind `url`, from the cache or downloaded into it, its SHA-256 checked against its name.

    Raises WeightsError, telling where to put the file by hand, when it cannot be had or is damaged.
    """
    name = Path(urlparse(url).path).name
    target = cache_folder() / name
    published = _HASH.search(name)
    hashes = {"sha256": published[1]} if published else {}
    if target.exists():
        if downloads.disagreement(target, None, hashes):
            raise WeightsError(f"{target}: damaged, its SHA-256 is not the one in its name; delete it, try again")
        return target
    by_hand = f"fetch {url} on a machine that has a network and put it at {target}"
    try:
        return downloads.fetch(url, target, hashes=hashes, progress=progress).path
    except downloads.DownloadError as error:
        raise WeightsError(f"{name}: cannot be downloaded ({error.cause}); {by_hand}") from error
    except downloads.MismatchError as error:
        raise WeightsError(f"{name}: what was downloaded has another SHA-256 than its name says; {by_hand}") from error


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file or of a .pth one (read as data: nothing in it is run).

    Raises WeightsError for a file that is absent, broken, or holds anything but named tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; give 'imagenet' or a .pth or .safetensors file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a broken or hostile file makes its reader raise
        cause = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise WeightsError(f"{path}: not a weight file that can be read safely: {cause}") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path}: holds something else than named tensors")
    return dict(content)


def fill(module: nn.Module, tensors: dict[str, Tensor], source: str | Path, ignored: Collection[str] = ()) -> None:
    """Puts `tensors` into `module`; every name must be found on both sides and every shape agree.

    `ignored` are prefixes of names that the file may have and the module lacks. Raises WeightsError that
    lists what is missing, unexpected or of another shape; the module is then unchanged.
    """
    own = module.state_dict()
    # files older than PyTorch 0.4.1 lack the counters of batch norm, which nothing here depends on
    missing = [name for name in own if name not in tensors and not name.endswith("num_batches_tracked")]
    prefixes = tuple(ignored)
    unexpected = [name for name in tensors if name not in own and not name.startswith(prefixes)]
    shapes = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    faults = [f"{len(names)} {kind}: {_few(names)}" for kind, names in kinds if names]
    if faults:
        raise WeightsError(f"{source}: does not fit this network; tensors {'; '.join(faults)}")
    module.load_state_dict({name: tensors.get(name, value) for name, value in own.items()})


def _few(names: list[str], limit: int = 6) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
