"""The clock that drives lights and machines: ticks ahead of time, from beats as they are reported.

`loop.BeatClock` is a phase-locked loop: it steers an `oscillator`, which gives the `ticks`, and
counts the `bar`. The user's `taps` tell it more.
"""
