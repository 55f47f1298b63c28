"""Everything that only a host with a GPU can show, in one command: ``make gpu-check``.

The same checks run on the CPU, at sizes that are small enough for the tests: there only the device
is another one.
"""
