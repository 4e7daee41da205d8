"""Is what we want already there? The API server adds, drops and rewrites; that is no difference."""

from typing import Any

import pytest

from copilot_operator.domain.subset import first_difference

POD: dict[str, Any] = {
    "spec": {
        "containers": [
            {
                "name": "copilot",
                "image": "cli:1",
                "args": ["--log-level", "info"],
                "env": [{"name": "HOME", "value": "/data"}, {"name": "EMPTY", "value": ""}],
                "resources": {"requests": {"cpu": "0.1", "memory": "1Gi"}, "limits": {}},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                "ports": [{"containerPort": 4321, "protocol": "TCP"}],
            }
        ],
        "nodeSelector": {},
        "tolerations": [],
    }
}


def stored() -> dict[str, Any]:
    """POD as an API server would keep it."""
    return {
        "status": {"phase": "Running"},
        "spec": {
            "restartPolicy": "Always",
            "containers": [
                {"name": "injected", "image": "mesh:1"},
                {
                    "name": "copilot",
                    "image": "cli:1",
                    "args": ["--log-level", "info"],
                    "env": [{"name": "EMPTY"}, {"name": "EXTRA", "value": "x"}, {"name": "HOME", "value": "/data"}],
                    "resources": {"requests": {"cpu": "100m", "memory": "1024Mi"}},
                    "volumeMounts": [
                        {"name": "data", "mountPath": "/data", "recursiveReadOnly": "Disabled"},
                        {"name": "data", "mountPath": "/elsewhere"},
                    ],
                    "ports": [
                        {"containerPort": 4321, "protocol": "UDP"},
                        {"containerPort": 4321, "protocol": "TCP", "name": "x"},
                    ],
                    "terminationMessagePath": "/dev/termination-log",
                },
            ],
        },
    }


def test_defaults_additions_and_other_spellings_are_no_difference() -> None:
    assert first_difference(POD, stored()) is None


def copilot(live: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = live["spec"]["containers"][1]
    return found


def test_a_changed_value_is_named_by_its_path() -> None:
    live = stored()
    copilot(live)["image"] = "cli:2"
    assert first_difference(POD, live) == ".spec.containers[copilot].image"


def test_a_removed_item_of_a_keyed_list_is_named() -> None:
    live = stored()
    del copilot(live)["env"][2]
    assert first_difference(POD, live) == ".spec.containers[copilot].env[HOME]"


def test_two_mounts_of_one_volume_are_told_apart_by_their_paths() -> None:
    live = stored()
    copilot(live)["volumeMounts"][0]["mountPath"] = "/other"
    assert first_difference(POD, live) == ".spec.containers[copilot].volumeMounts[/data]"


def test_a_changed_quantity_is_a_difference() -> None:
    live = stored()
    copilot(live)["resources"]["requests"]["cpu"] = "101m"
    assert first_difference(POD, live) == ".spec.containers[copilot].resources.requests.cpu"


def test_the_order_and_length_of_plain_lists_count() -> None:
    assert first_difference({"args": ["a", "b"]}, {"args": ["b", "a"]}) == ".args[0]"
    assert first_difference({"args": ["a"]}, {"args": ["a", "b"]}) == ".args"
    assert first_difference({"args": ["a"]}, {}) == ".args"


def test_the_first_difference_is_the_same_in_every_run() -> None:
    assert first_difference({"b": 1, "a": 1}, {"a": 2, "b": 2}) == ".a"


@pytest.mark.parametrize("empty", [None, {}, [], ""])
def test_what_is_empty_may_be_missing(empty: Any) -> None:
    assert first_difference({"field": empty}, {}) is None


@pytest.mark.parametrize("value", [0, False])
def test_zero_and_false_are_not_empty(value: Any) -> None:
    assert first_difference({"field": value}, {}) == ".field"


@pytest.mark.parametrize(
    ("wanted", "live", "same"),
    [("1Gi", "1024Mi", True), ("500m", "0.5", True), ("2", 2, True), ("1G", "1Gi", False), ("1", "what", False)],
)
def test_quantities_are_compared_by_value_and_only_where_quantities_stand(wanted: str, live: Any, same: bool) -> None:
    assert first_difference({"args": {"x": wanted}}, {"args": {"x": live}}) == ".args.x"
    nested = first_difference({"resources": {"limits": {"x": wanted}}}, {"resources": {"limits": {"x": live}}})
    assert (nested is None) is same


def test_another_label_in_a_selector_is_a_difference_since_it_selects_something_else() -> None:
    service = {"spec": {"selector": {"app": "copilot"}}}
    assert first_difference(service, {"spec": {"selector": {"app": "copilot", "off": "yes"}}}) == ".spec.selector.off"
    policy = {"spec": {"podSelector": {"matchLabels": {"app": "copilot"}}}}
    live = {"spec": {"podSelector": {"matchLabels": {"app": "copilot", "off": "yes"}}}}
    assert first_difference(policy, live) == ".spec.podSelector.matchLabels.off"


def test_labels_of_others_stay() -> None:
    assert (
        first_difference({"metadata": {"labels": {"a": "1"}}}, {"metadata": {"labels": {"a": "1", "b": "2"}}}) is None
    )
