"""Logs: one JSON object a line, so that they can be searched by field. Values of Secrets are never put into them."""

import json
import logging
import sys
import time
from typing import Final

OWN: Final = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """``time`` (UTC), ``level``, ``logger``, ``message``, what is in ``extra``, and ``exception`` if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {"time": f"{at}.{int(record.msecs):03d}Z", "level": record.levelname.lower()}
        line |= {"logger": record.name, "message": record.getMessage()}
        line |= {key: str(value) for key, value in vars(record).items() if key not in OWN and not key.startswith("_")}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_json(level: str) -> None:
    """Have all of the process's logs written so to stdout, from ``level`` on."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
