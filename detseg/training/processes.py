"""The processes of a run, one a device: who is who, and what they tell each other. Most runs have but one.

Lightning Fabric launches them, or torchrun or SLURM did; the first one alone writes files and talks. Where one dies the
others end too: gloo notices a closed connection; who was launched by another watches it, and is watched.

Each holds the whole model (DDP). To shard it (FSDP) would save nothing that a GPU lacks: the largest of the catalog,
FCN on VGG16 with 134 million parameters, needs 2 GB with its gradients and moments.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, NoReturn, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy

from detseg.errors import DetsegError
from detseg.training.config import TrainConfig

T = TypeVar("T")
PATIENCE = timedelta(hours=2)  # for another process: the first one may search for proposals, or measure
LOOK_EVERY_S = 1.0


@dataclass(frozen=True)
class Processes:
    """This process among those of the run. `tell` hears why it ends at once because another did, as in `start`."""

    fabric: Fabric
    tell: Callable[[str], None]

    @property
    def rank(self) -> int:
        """The number of this process, from 0."""
        return int(self.fabric.global_rank)

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.fabric.world_size)

    @property
    def on_this_machine(self) -> int:
        """How many of them are where this one is."""
        return max(1, self.count // int(getattr(self.fabric.strategy, "num_nodes", 1)))

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and talks."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in their order."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(found, value)
        return found

    def of_first(self, value: T) -> T:
        """The value of the first process."""
        return self.fabric.broadcast(value)

    def total(self, values: Sequence[float]) -> list[float]:
        """The sums over the processes."""
        if self.count == 1:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64, device=self.fabric.device)
        torch.distributed.all_reduce(numbers)
        sums: list[float] = numbers.tolist()
        return sums

    def wait(self) -> None:
        """For all to come here."""
        self.fabric.barrier()

    def first_alone(self, work: Callable[[], T]) -> T:
        """`work()` in the first process, and when that is done in the others, who find what it left for them."""
        if self.first:
            done = work()
            self.wait()
            return done
        self.wait()
        return work()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Parts from the others; ends at once where one of them is lost."""
        if error is None and self.count > 1:
            torch.distributed.destroy_process_group()
        if error is not None and _is_loss_of_process(error):
            words = " ".join(str(error).split()).partition(". ")[0]
            _end(self.tell, f"another process of the run is lost: {words}")

    def share_buffers(self, model: torch.nn.Module) -> None:
        """Gives all processes the first one's running statistics, where each gathered its own."""
        if self.count > 1:
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, 0)


def start(config: TrainConfig, tell: Callable[[str], None] = lambda _: None) -> Processes:
    """Launches the processes that are not there yet; each comes back from this call as one of them.

    Those that are launched repeat the command line of this process. `tell` hears why a run ends at once because a
    process of it died; the exit code is 1 then. Raises DetsegError where the devices are not there.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it tells of every process otherwise
    devices, nodes = _wanted(config)
    several = devices * nodes > 1
    kind, _, index = config.device.partition(":")
    if several and index:
        raise DetsegError(f"--device {config.device} is one device and --devices {devices} are several; leave one out")
    try:
        fabric = Fabric(
            accelerator={"gpu": "cuda"}.get(kind, kind),
            devices=[int(index)] if index else devices,
            num_nodes=nodes,
            # a batch may leave a part of the network without a gradient: no object, no mask
            strategy=DDPStrategy(find_unused_parameters=True, timeout=PATIENCE) if several else "auto",
            precision=config.precision,
        )
        fabric.launch()
    except (ValueError, RuntimeError) as error:
        raise DetsegError(
            f"{devices} devices on {nodes} nodes cannot be used: {' '.join(str(error).split())}"
        ) from error
    if several:
        _watch(list(getattr(fabric.strategy.launcher, "procs", [])), tell)
    return Processes(fabric, tell)


def is_first() -> bool:
    """Whether this process talks, as far as is known before `start`."""
    names = ("RANK", "SLURM_PROCID") if _launched_elsewhere() else ("NODE_RANK", "LOCAL_RANK")
    return not any(int(os.environ.get(name, "0")) for name in names)


def _is_loss_of_process(error: BaseException) -> bool:
    """Whether an error of torch's says that another process cannot be reached."""
    words = str(error)
    of_torch = isinstance(error, torch.distributed.DistError)
    return of_torch or (isinstance(error, RuntimeError) and ("gloo" in words or "NCCL" in words))


def _end(tell: Callable[[str], None], why: str) -> NoReturn:
    """Ends this process without the interpreter's own end, in which torch's threads, still waiting, may abort it."""
    try:
        tell(why)
    finally:  # whoever reads may be gone too
        os._exit(1)


def _wanted(config: TrainConfig) -> tuple[int, int]:
    """Devices a node, and nodes: as torchrun or SLURM started them, else as is asked for."""
    if TorchElasticEnvironment.detect():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return local, int(os.environ["WORLD_SIZE"]) // local
    if SLURMEnvironment.detect():
        nodes = int(os.environ.get("SLURM_NNODES", "1"))
        return int(os.environ["SLURM_NTASKS"]) // nodes, nodes
    return config.devices, config.nodes


def _launched_elsewhere() -> bool:
    return bool(TorchElasticEnvironment.detect() or SLURMEnvironment.detect())


def _watch(children: list[Any], tell: Callable[[str], None]) -> None:
    """Has a thread look after the processes that this one launched, or after the one that launched this one."""
    look: Callable[[list[Any], int, Callable[[str], None]], None]
    if children:
        look = _look_after_children
    elif not _launched_elsewhere() and int(os.environ.get("LOCAL_RANK", "0")):
        look = _look_after_parent
    else:
        return  # torchrun and SLURM look after theirs
    threading.Thread(target=look, args=(children, os.getppid(), tell), daemon=True, name="watch").start()


def _look_after_children(children: list[Any], _: int, tell: Callable[[str], None]) -> None:
    while True:
        time.sleep(LOOK_EVERY_S)
        for number, child in enumerate(children, 1):
            code = child.poll()
            if code:
                how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
                for other in children:
                    with suppress(OSError):
                        other.kill()
                _end(tell, f"process {number} of the run ended with {how}")


def _look_after_parent(_: list[Any], parent: int, __: Callable[[str], None]) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY_S)
    os._exit(1)
