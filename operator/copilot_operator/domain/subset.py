"""Is what we want already there? ``wanted`` must be found in ``live``; what others added to ``live`` may stay."""

from typing import Any, Final

from copilot_operator.api.quantity import quantity_value

KEYS: Final = (("mountPath",), ("uid",), ("name",), ("containerPort", "protocol"), ("port", "protocol"))
ATOMIC: Final = frozenset({"selector", "podSelector", "namespaceSelector", "nodeSelector"})  # compared whole
EMPTY: Final[tuple[Any, ...]] = (None, {}, [], "")


def first_difference(wanted: Any, live: Any, path: str = "") -> str | None:
    """Path of the first wanted value that is not there, in a fixed order; None if all is there.

    Maps are compared key by key, lists of objects by their list-map key, quantities by value; what the server drops
    because it is empty counts as there. Selectors are compared as a whole: one more label selects something else.
    """
    if wanted == live or (wanted in EMPTY and live in EMPTY):
        return None
    if isinstance(wanted, dict) and isinstance(live, dict):
        whole = not ATOMIC.isdisjoint(path.split("."))
        keys = sorted(wanted.keys() | live.keys() if whole else wanted)
        pairs = (first_difference(wanted.get(key), live.get(key), f"{path}.{key}") for key in keys)
        return next((found for found in pairs if found), None)
    if isinstance(wanted, list) and isinstance(live, list):
        return _lists(wanted, live, path)
    if path.rpartition(".")[0].endswith((".requests", ".limits")) and _same(wanted, live):
        return None
    return path or "."


def _same(wanted: object, live: object) -> bool:
    try:
        return quantity_value(str(wanted)) == quantity_value(str(live))
    except ValueError:
        return False


def _lists(wanted: list[Any], live: list[Any], path: str) -> str | None:
    if keys := _map_key([*wanted, *live]):
        by_key = {_key(item, keys): item for item in live}
        pairs = [(item, by_key.get(_key(item, keys)), f"{path}[{item[keys[0]]}]") for item in wanted]
    elif len(wanted) == len(live):
        pairs = [(want, have, f"{path}[{at}]") for at, (want, have) in enumerate(zip(wanted, live, strict=True))]
    else:
        return path
    return next((found for want, have, at in pairs if (found := first_difference(want, have, at))), None)


def _key(item: dict[str, Any], keys: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(item.get(key) for key in keys)


def _map_key(items: list[Any]) -> tuple[str, ...] | None:
    """The field that tells the items apart, if this is a list of objects that has one."""
    if not items or not all(isinstance(item, dict) for item in items):
        return None
    return next((keys for keys in KEYS if all(keys[0] in item for item in items)), None)
