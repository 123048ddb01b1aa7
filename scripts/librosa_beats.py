"""Write what librosa's beat tracker finds in a folder's songs: librosa_beats.py MUSIC OUT.

A vote for `trainer label` that shares neither model nor tempo prior with ours. Runs in an
environment of its own, since librosa is no dependency of this project. Bars are not counted: every
beat is written as a first one. Songs that are done are left alone.
"""

import sys
from pathlib import Path

import librosa

music, out = Path(sys.argv[1]), Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)
for song in sorted(music.glob("[!.]*.*")):
    target = out / f"{song.stem}.beats"
    if target.exists() or song.suffix.lower() not in {".ogg", ".flac", ".wav", ".mp3"}:
        continue
    samples, rate = librosa.load(song, sr=22050)
    _, beats = librosa.beat.beat_track(y=samples, sr=rate, units="time")
    text = "".join(f"{time:.4f}\t1\n" for time in beats) or "# no beats\n"
    temporary = target.with_suffix(".part")
    temporary.write_text(text)
    temporary.rename(target)
    print(f"{song.name}: {len(beats)} beats", flush=True)
