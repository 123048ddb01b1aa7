"""The commands of ``trainer``, one file each: words in, one call, words out."""
