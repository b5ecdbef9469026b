"""xpdl: deep learning whole, on an array module chosen at run time."""
