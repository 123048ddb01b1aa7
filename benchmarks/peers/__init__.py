"""Online beat trackers beside ours on a folder of songs: ``just bench-peers``, docs/peers.md."""
