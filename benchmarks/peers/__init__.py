"""The same work on Lineshaft and on its peers, side by side: `make bench-peers`."""
