"""The operator's dealings with running servers."""
