"""NumPy's arrays, with convolution and pooling compiled by Numba."""
