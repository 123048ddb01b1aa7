"""`python -m beattrack_runtime` is `beattrack`."""

from beattrack_runtime.cli import main

main()
