"""`trainer doctor`: what this machine can do for the trainer, and what to do where it cannot.

`examination` carries out every check: those of the `libraries` that compute, and those of the
`surroundings`.
"""
