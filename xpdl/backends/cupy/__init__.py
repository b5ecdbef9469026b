"""CuPy on a CUDA GPU: the backend, kernels of its own, products by cuBLAS, capture."""
