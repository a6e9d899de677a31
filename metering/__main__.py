"""`python -m metering` is the command `metering`."""

from metering.cli import main

main()
