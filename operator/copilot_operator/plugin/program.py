"""All commands, put together."""

from copilot_operator.plugin import actions, completion, doctor, looking, page, talking
from copilot_operator.plugin.group import cli

__all__ = ["actions", "cli", "completion", "doctor", "looking", "page", "talking"]
