"""Rendered music with exact beats: a data set that anyone can have."""
