"""The modules that the book's scripts import, on xpdl's engine, and what runs such a script.

A script of the book says ``from common.layers import Affine`` and ``from dataset.mnist import
load_mnist``. `xpdl.book.script.run_script` gives it the modules of this room under those names.
They keep the book's ways: arrays are NumPy's, of float64 unless a script has others, gradients are
fields, shapes are the caller's affair. Products, convolutions and pooling are a backend's; on a
device, arrays go there and come back within a call.
"""
