"""The version of xpdl, said once: the package, the wheel and the compiled code's folder read it."""

__version__ = "0.1.0"
