"""The operator's dealings with running servers."""

Key = tuple[str, str]  # namespace, server
