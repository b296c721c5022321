"""Several processes that train one model together, as ``torchrun`` starts them: one for each GPU, or on several machines.

A step of the optimiser rests on batches that know nothing of each other: each has its own negatives and its own batch
normalisation. Whether one process goes through them in turn or each of several takes its share makes no difference but
for rounding. What one batch changes in the statistics of normalisations is averaged over the batches of a step.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from core.pretraining.launch import started_processes

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Processes:
    """Those that train together.

    Attributes:
        rank: of this one; 0 writes the files.
        count: of all.
        device: that tensors must be on to be exchanged.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = CPU

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def own(self, number: int) -> range:
        """Which of so many batches are this process's."""
        return range(self.rank, number, self.count)

    def agree(self, value: float) -> float:
        """The main process's value."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, src=0)
        return float(shared)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Puts the sum over all processes into each tensor; one message for all of a type."""
        if self.count == 1:
            return
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            own = [tensor for tensor in tensors if tensor.dtype == dtype]
            joined_up = torch.cat([tensor.reshape(-1) for tensor in own]).to(self.device)
            distributed.all_reduce(joined_up)
            for tensor, part in zip(own, torch.split(joined_up, [tensor.numel() for tensor in own]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sums of the gradients; a parameter that no process has one for keeps none."""
        if self.count == 1:
            return
        has_one = torch.tensor([float(parameter.grad is not None) for parameter in parameters], device=self.device)
        self.add_up([has_one])
        chosen = [parameter for parameter, processes in zip(parameters, has_one.tolist(), strict=True) if processes]
        for parameter in chosen:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.add_up([parameter.grad for parameter in chosen if parameter.grad is not None])

    def all_rows(self, rows: Tensor) -> Tensor:
        """The rows of all processes, in the order of their ranks; their numbers may differ.

        Args:
            rows: (n, C).
        """
        if self.count == 1:
            return rows
        counts = torch.zeros(self.count, dtype=torch.int64, device=self.device)
        counts[self.rank] = len(rows)
        self.add_up([counts])
        padded = rows.new_zeros((int(counts.max()), *rows.shape[1:])).to(self.device)
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.count)]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts.tolist(), strict=True)]).to(rows.device)

    def all_values(self, values: dict[str, Any]) -> list[dict[str, Any]]:
        """The values of all processes, in the order of their ranks. They travel as JSON and not as pickles."""
        if self.count == 1:
            return [values]
        text = torch.frombuffer(bytearray(json.dumps(values).encode()), dtype=torch.uint8)
        # Lines of one byte: their number differs from process to process.
        lengths = torch.zeros(self.count, dtype=torch.int64, device=self.device)
        lengths[self.rank] = len(text)
        self.add_up([lengths])
        everything = bytes(self.all_rows(text[:, None]).flatten().tolist())
        found, start = [], 0
        for length in lengths.tolist():
            found.append(json.loads(everything[start : start + length]))
            start += length
        return found


_current = Processes()


def current() -> Processes:
    """Those that this process trains with; itself alone outside ``joined``."""
    return _current


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Joins the processes that ``torchrun`` has started, if it has; its environment variables say how.

    Args:
        device: that this process trains on: over NCCL between GPUs, over gloo otherwise.
    """
    global _current
    if started_processes() == 1:
        yield _current
        return
    is_gpu = device.type == "cuda"
    distributed.init_process_group("nccl" if is_gpu else "gloo")
    try:
        place = device if is_gpu else CPU
        _current = Processes(distributed.get_rank(), distributed.get_world_size(), place)
        yield _current
    finally:
        _current = Processes()
        distributed.destroy_process_group()


class AveragedBuffers:
    """What several batches of a step change in running statistics, averaged as if each had been the only one.

    Args:
        modules: whose buffers may change; those of parts in evaluation mode, such as teachers, do not.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        parts = (part for module in modules for part in module.modules() if part.training)
        self._buffers = list({id(b): b for part in parts for b in part.buffers(recurse=False)}.values())
        self._start = [buffer.clone() for buffer in self._buffers]
        self._change: dict[int, Tensor] = {}

    @torch.no_grad()
    def take(self) -> None:
        """Notes what the last batch changed, and undoes it. Counters keep what the last batch made of them."""
        for number, (buffer, start) in enumerate(zip(self._buffers, self._start, strict=True)):
            if buffer.is_floating_point() and not torch.equal(buffer, start):
                change = buffer - start
                self._change[number] = self._change[number] + change if number in self._change else change
                buffer.copy_(start)

    @torch.no_grad()
    def put(self, processes: Processes, count: int) -> None:
        """Adds the mean change.

        Args:
            processes: that had a share of the batches.
            count: of all batches.
        """
        flags = torch.zeros(len(self._buffers), device=processes.device)
        flags[list(self._change)] = 1.0
        processes.add_up([flags])
        changed = flags.nonzero().flatten().tolist()
        changes = [self._change.get(number, torch.zeros_like(self._buffers[number])) for number in changed]
        processes.add_up(changes)
        for number, change in zip(changed, changes, strict=True):
            self._buffers[number].add_(change / count)
