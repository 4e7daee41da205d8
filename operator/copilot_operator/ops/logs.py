"""The operator's logs: its own, and what is worth reading of the libraries'."""

import logging

from copilot_operator.json_lines import log_json


def set_up(level: str) -> None:
    log_json(level)
    logging.getLogger("kopf").setLevel(max(logging.WARNING, logging.getLogger().level))
    for noisy in ("httpx", "httpcore"):  # each request, with the headers of its answer
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
