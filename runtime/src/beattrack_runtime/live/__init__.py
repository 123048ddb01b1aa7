"""The live instrument: one steady clock between the tracker and whatever it drives.

A tracker's events go through `clock.loop.BeatClock`, which gives ticks ahead of time, and
`walltime.StreamTime`, which says when each of them sounds, to any number of outputs; each has a
thread and a queue of its own (`delivery.Delivery`), so none can hold up another or the tracker.
`show.Show` ties them together.
"""
