"""Ends copilot-runtime, which goes on when it is told to shut down, and is another user's: we may send it no signal.

The script that starts it (``copilot-server``) waits for something to be written to a file, and sends them for us.
"""

import os
from pathlib import Path


def tell_to_end(path: Path) -> None:
    """Write to the file, which the script has made. Raises OSError.

    The server may put something else there: a link is not followed, and no pipe is waited for.
    """
    end = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(end, b"1")
    finally:
        os.close(end)
