"""Several processes that train one model, as ``torchrun`` starts them: who is who, and what they tell each other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from modules.commons.errors import BackendUnavailableError, GeneFaceError


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's number among all of them.

    Attributes:
        rank: 0 writes files; the others only compute.
        count: processes.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their mean over all processes, in one message."""
        if self.count == 1:
            return
        tensors = list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        parts = flat.div_(self.count).split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(tensors, [part.view_as(whole) for part, whole in zip(parts, tensors, strict=True)])

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.count > 1:
            distributed.all_reduce(tensor)
        return tensor

    def agreed(self, flag: bool, device: torch.device) -> bool:
        """What the first process says, so that all of them take the same way."""
        if self.count == 1:
            return flag
        answer = torch.tensor([int(flag)], device=device)
        distributed.broadcast(answer, src=0)
        return bool(answer)

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            distributed.barrier()

    def check_same(self, tensors: Iterable[Tensor], when: str) -> None:
        """Make sure that every process holds the same numbers.

        Raises:
            GeneFaceError: they have drifted apart.
        """
        if self.count == 1:
            return
        flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
        low, high = flat.clone(), flat
        distributed.all_reduce(low, op=distributed.ReduceOp.MIN)
        distributed.all_reduce(high, op=distributed.ReduceOp.MAX)
        if not torch.equal(low, high):
            apart = float((high - low).abs().max())
            raise GeneFaceError(f"the processes' weights differ by {apart:.3g} {when}; start the training again")


@contextmanager
def joined(device_name: str) -> Iterator[Ranks]:
    """Join the other processes of a ``torchrun``; alone without one.

    With CUDA each process takes the GPU of its number on this host, and they talk through NCCL; else through gloo.

    Raises:
        BackendUnavailableError: this host has fewer GPUs than processes.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks()
        return
    use_cuda = device_name != "cpu" and torch.cuda.is_available()
    if use_cuda:
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise BackendUnavailableError(
                f"process {local} of this host has no GPU of its own; use --nproc_per_node={torch.cuda.device_count()}"
            )
        torch.cuda.set_device(local)
        distributed.init_process_group("nccl", device_id=torch.device("cuda", local))
    else:
        distributed.init_process_group("gloo")
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
