"""A training step of PyTorch on a GPU, as somebody writes it who cares how long it takes."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bench.measure import Run
from bench.networks import torch_twin
from bench.programs import batch
from xpdl.network import Network

# Before a step is captured, cuDNN has chosen its algorithms, and memory and states are there.
WARM_UP = 5


def torch_step(
    factory: Callable[..., Network],
    batch_size: int,
    *,
    device: str,
    half: bool = False,
    compiled: bool = False,
    one_graph: bool = False,
) -> Run:
    """Return a step: channels last, and Adam in one kernel. The device is not waited for.

    Parameters
    ----------
    half : bool
        Whether autocast computes in float16, with a scaled loss; on a CPU, where PyTorch is at home
        in bfloat16, in that.
    compiled : bool
        Whether model and loss are compiled.
    one_graph : bool
        Whether the whole step, loss scale and optimizer included, is one CUDA graph.
    """
    import torch

    network = factory()
    kind = torch.channels_last
    model = torch_twin(network).to(device).to(memory_format=kind)
    x, t = (torch.from_numpy(a).to(device) for a in batch(network, batch_size))
    x = x.to(memory_format=kind)
    optimizer = torch.optim.Adam(model.parameters(), fused=True, capturable=one_graph)
    criterion, scaler = torch.nn.CrossEntropyLoss(), torch.amp.GradScaler(device, enabled=half)
    lower = torch.bfloat16 if device == "cpu" else torch.float16

    def loss(x: Any, t: Any) -> Any:
        with torch.autocast(device, lower, enabled=half):
            return criterion(model(x), t)

    if compiled:
        loss = torch.compile(loss, dynamic=False)

    def step() -> None:
        optimizer.zero_grad()
        scaler.scale(loss(x, t)).backward()
        scaler.step(optimizer)
        scaler.update()

    return OneGraph(step) if one_graph else step


class OneGraph:
    """A step of PyTorch captured whole, and replayed.

    The step is kept, since the graph works on its model, its batch and its optimizer.
    """

    def __init__(self, step: Run) -> None:
        import torch

        self._step, stream = step, torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        gc.collect()  # what is given back while a stream captures can spoil the capture
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            step()

    def __call__(self) -> None:
        """Do a step."""
        self._graph.replay()


@contextmanager
def torch_settings(tf32: bool) -> Iterator[None]:
    """Let products and convolutions alike round to TF32, or neither; choose by measuring."""
    import torch

    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = tf32, tf32, True
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before
