"""Looking at a network: its layers and shapes, and the memory that they take."""

from __future__ import annotations

import math
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from xpdl.architecture.freezing import Freezing
from xpdl.arguments import LARGEST, whole_number
from xpdl.backends import Shape
from xpdl.errors import DeviceMemoryError
from xpdl.layers import Convolution


class Looking(Freezing):
    """A network that tells what it is made of."""

    def summary(self, batch_size: int = 100) -> str:
        """Return a table: layers, output shapes, parameter counts, memory for a batch.

        Layers that are frozen are said to be.
        """
        batch_size = whole_number("batch_size", batch_size, most=LARGEST)
        rows = [
            (name if name != "x" else "input", "", _show(shape), "")
            for name, shape in self.input_shapes.items()
        ]
        total, before = 0, next(reversed(self.input_shapes))
        activations = sum(map(math.prod, self.input_shapes.values()))
        for place in self.body.places:
            shape, leaves = self.body.shapes[place.name], list(place.layer.leaves())
            count = sum(math.prod(s.shape) for _, leaf in leaves for s in leaf.specs.values())
            about = repr(place.layer) + (", frozen" if place.name in self.frozen else "")
            if place.reads != (before,):
                about += f" <- {', '.join(place.reads)}"
            rows.append((place.name, about, _show(shape), f"{count:,}" if count else ""))
            total, before = total + count, place.name
            activations += math.prod(shape)
        widths = max(len(row[0]) for row in rows), max(len(row[2]) for row in rows)
        lines = [
            f"{name:<{widths[0]}}  {shape:>{widths[1]}}  {count:>10}  {layer}"
            for name, layer, shape, count in rows
        ]
        precision = self.precision
        held = self.parameters.values, self.grads, self.parameters.compute
        fixed = sum({id(d): d.buffer.nbytes for d in held}.values())
        kept = batch_size * activations * precision.compute.itemsize
        still = sum(math.prod(self.params[name].shape) for name in self.params.frozen)
        frozen = f" ({still:,} frozen)" if still else ""
        header = (
            f"{self.name}: {total:,} parameters{frozen}, {precision.name}, on {self.backend.name}"
        )
        footer = (
            f"memory: {_megabytes(fixed)} for parameters and gradients, about {_megabytes(kept)} "
            f"for the activations of a training batch of {batch_size}"
        )
        return "\n".join(line.rstrip() for line in (header, *lines, footer))

    def __repr__(self) -> str:
        total = sum(math.prod(shape) for shape in self.parameters.layout.shapes.values())
        return f"<{self.name}: {total:,} parameters, {self.precision.name}, {self.backend.name}>"

    # ---- memory ---------------------------------------------------------------------------------

    def bytes_per_sample(self, train: bool) -> int:
        """Return about how many bytes of the device one sample of a batch takes.

        In training every layer's output is kept until its gradient has passed; beside it there are
        the gradients on both sides of a layer, and the windows of a convolution laid out.
        """
        sizes, windows = [*map(math.prod, self.input_shapes.values())], 0
        for place in self.body.places:
            shape, layer = self.body.shapes[place.name], place.layer
            sizes.append(math.prod(shape))
            if isinstance(layer, Convolution):
                area = math.prod(layer.params["W"].shape[1:])
                windows = max(windows, area * math.prod(shape[1:]))
        passing = 3 * max(sizes) + windows
        itemsize = self.precision.compute.itemsize
        return itemsize * (sum(sizes) + passing if train else passing)

    @contextmanager
    def explaining_memory(self, batch_size: int, train: bool) -> Iterator[None]:
        """Within a block: if memory runs out, say what was asked for, what is free and what fits.

        Raises
        ------
        DeviceMemoryError
            In place of any MemoryError.
        """
        try:
            yield
        except MemoryError as error:
            if isinstance(error, DeviceMemoryError):
                raise
            traceback.clear_frames(error.__traceback__)  # they hold arrays
            self.forget()
            free = self.backend.free_memory()
            asked = re.search(r"allocat\w* ([\d.,]+ [KMGTi]*[Bb]\w*)", str(error))
            raise DeviceMemoryError(
                f"{self.name} ran out of memory on {self.backend.name} with a batch of "
                f"{batch_size:,}: {asked.group(1) if asked else 'more'} were asked for"
                f"{_what_fits(free, self.bytes_per_sample(train), batch_size)}"
            ) from error


def _what_fits(free: int | None, per_sample: int, batch_size: int) -> str:
    if free is None:
        return ". Use a smaller batch."
    fits = min(int(0.9 * free) // per_sample, batch_size - 1)
    text = f", {_megabytes(free)} are free without it. "
    if fits < 1:
        return text + "Not even a batch of 1 will fit; use a smaller network or float16."
    return text + f"A batch of {fits:,} should fit (batch_size={fits}, --batch-size {fits})."


def _show(shape: Shape) -> str:
    return " x ".join(map(str, shape))


def _megabytes(count: int) -> str:
    return f"{count / 2**20:.1f} MB"
