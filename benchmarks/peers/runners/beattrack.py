"""This project: the events of ``beattrack --file``, and the cost of its live chain hop by hop."""

from __future__ import annotations

import itertools
import json
import resource
import subprocess
import sys

from peers.runners.common import Meter, answer, blocks, song

RATE = 44100
HOP = 882  # 20 ms, as a sound card would hand it over
COST_S = 60  # as much of the song is timed


def main() -> None:
    """Run the command for its events and peak memory, then the same chain for its cost."""
    model = sys.argv[3:]
    command = [sys.executable, "-m", "beattrack_runtime", "--file", str(song())]
    command += ["--output", "jsonl", *(["--model", model[0]] if model else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)  # it has said why
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    events = [json.loads(line) for line in done.stdout.splitlines()]
    beats = [(e["time_s"], e["position"], e["emitted_s"]) for e in events if e["type"] == "beat"]

    from beattrack_runtime import open_tracker

    tracker = open_tracker(model[0] if model else None, sample_rate=RATE)
    meter = Meter()
    heard = 0
    for block in itertools.islice(blocks(HOP), COST_S * RATE // HOP):
        meter.hop(tracker.push, block)
        heard += HOP
    cost = meter.cost(HOP / RATE)
    answer(beats, {**cost, "timed_s": heard / RATE}, ["beattrack-runtime", "onnxruntime"], memory)


if __name__ == "__main__":
    main()
