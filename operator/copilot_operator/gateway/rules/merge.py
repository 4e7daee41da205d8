"""What a client asks of all servers at once, and how their answers become one. Ids in results are the servers'."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from copilot_operator.gateway.rules.methods import Rule

NEWEST_FIRST: Final = "modifiedTime"  # of sessions in a list


def concerns_all(rule: Rule) -> bool:
    """Whether the answer depends on what a server stores; if not, any server's will do."""
    return bool(rule.ids or rule.result_ids)


def merged(results: Sequence[Any]) -> Any:
    """Lists end to end, maps together, of anything else the first that is there; sessions newest first."""
    if len(results) == 1:
        return results[0]
    if all(isinstance(each, list) for each in results):
        return _sorted([item for each in results for item in each])
    if all(isinstance(each, Mapping) for each in results):
        keys = dict.fromkeys(key for each in results for key in each)
        return {key: merged([each[key] for each in results if key in each]) for key in keys}
    return next((each for each in results if each is not None), None)


def _sorted(items: list[Any]) -> list[Any]:
    if all(isinstance(item, Mapping) and NEWEST_FIRST in item for item in items):
        return sorted(items, key=lambda item: str(item[NEWEST_FIRST]), reverse=True)
    return items
