"""Addresses for servers whose port is fixed."""

import os


def own_address(number: int = 1) -> str:
    """A loopback address (``number``: 1 to 190) that no other process of this run uses: tests run side by side."""
    pid = os.getpid()
    return f"127.{64 + number}.{pid >> 8 & 255}.{pid & 255}"
