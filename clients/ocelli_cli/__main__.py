"""`python -m ocelli_cli`."""

from ocelli_cli.app import main

main()
