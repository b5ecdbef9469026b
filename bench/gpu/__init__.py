"""The command ``python -m bench gpu``: all that wants a GPU, measured in one run.

`command` reads the options, `plan` shares out the time among the parts and keeps what they measure,
`worker` is the process that measures. There is a file for each part, in order of worth: `parity`,
`step` (beside `peers`), `kernels`, `training`, `memory` and `suite`. `record` says what they were
measured on and with, `tables` makes Markdown of it, and `charts` draws it.
"""
