"""NumPy in blocks and on threads; what `numba` stands on."""
