"""What ends a command with exit code 1 and a sentence for its user."""


class PluginError(Exception):
    """The message names what was asked, what was found, and the way out."""


class KubectlError(PluginError):
    """kubectl failed. ``reason`` is the API server's word (NotFound, Forbidden, ...), "" where it said none."""

    def __init__(self, what: str, reason: str, message: str, way_out: str = "") -> None:
        super().__init__(f"{what}: {message}" + (f"\n{way_out}" if way_out else ""))
        self.what, self.reason, self.message = what, reason, message
