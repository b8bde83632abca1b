"""`python -m aibridge_flask`."""

from .cli import main

main()
