"""`beattrack --doctor`: what this machine has for a live show, and what to do where it lacks.

`examination` carries out every check: those of `computing` look at program and processor, those of
`sound` at inputs and outputs, those of `access` at this user's rights, those of `container` at what
its command line allows and those of `protocols` at what live outputs send to.
"""
