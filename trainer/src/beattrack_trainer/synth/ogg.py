"""Ogg Vorbis files that are the same, byte for byte, for the same audio."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import soundfile

from beattrack_trainer.synth.effects import Audio

BLOCK = 16384  # samples; libsndfile overflows its stack on long writes
REVERSED = bytes(int(f"{i:08b}"[::-1], 2) for i in range(256))


def write_ogg(path: Path, audio: Audio, rate: int, serial: int) -> None:
    """Write mono audio, float32[n], as Vorbis; ``serial`` (32 bits) is the stream's number.

    libsndfile draws that number from the clock, so two files of the same audio would differ.
    """
    with soundfile.SoundFile(path, "w", rate, 1, format="OGG", subtype="VORBIS") as file:
        for start in range(0, len(audio), BLOCK):
            file.write(audio[start : start + BLOCK])
    path.write_bytes(renumbered(path.read_bytes(), serial))


def renumbered(data: bytes, serial: int) -> bytes:
    """An Ogg file with another serial number in all its pages (RFC 3533, section 6)."""
    pages, at = [], 0
    while at < len(data):
        segments = data[at + 26]
        end = at + 27 + segments + sum(data[at + 27 : at + 27 + segments])
        head = data[at : at + 14] + struct.pack("<I", serial) + data[at + 18 : at + 22]
        tail = data[at + 26 : end]
        checksum = struct.pack("<I", crc(head + bytes(4) + tail))
        pages.append(head + checksum + tail)
        at = end
    return b"".join(pages)


def crc(data: bytes) -> int:
    """The checksum of Ogg: polynomial 04c11db7, start 0, bits not reversed.

    zlib has the same polynomial with reversed bits, start and result inverted.
    """
    mirrored = zlib.crc32(data.translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
