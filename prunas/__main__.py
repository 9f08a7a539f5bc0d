"""`python -m prunas`."""

from prunas.cli import main

main()
