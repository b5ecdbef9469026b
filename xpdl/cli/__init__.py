"""The command `xpdl`, and the frame of the examples."""
