"""`python -m des4` is `des4`."""

from des4.cli import main

main()
