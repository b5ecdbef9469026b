"""A GPU rehearsed on the CPU: NumPy underneath, a device's rules on top.

A `DeviceArray` can be used only through `xp` and its own operators, as CuPy's arrays. Whatever
would fail, stall or go silently wrong on a GPU raises `DeviceRuleError`, which says what a GPU
would have done:

- reading a number or the whole array outside `Backend.item` and `Backend.to_numpy`,
- NumPy arrays and NumPy functions in an operation,
- float64 that nobody asked for,
- an index array that points beyond the bounds, or writes one place twice.

Element-wise results are in C order, as CuPy's are. Transfers between host and device are counted
in `StrictBackend.transfers`.

A step can be captured and replayed as a CUDA graph is (`StrictBackend.compile_step`): host numbers
are frozen, memory is not, and a transfer in between raises.
"""
