"""The operator's settings: what is wrong is named, with what to write."""

import pytest

from copilot_operator.settings import OperatorSettings, SettingsError

ENV = {"COPILOT_OPERATOR_IMAGE": "operator:1"}


def test_there_is_a_page_where_a_port_is_given() -> None:
    assert OperatorSettings.from_environment(ENV).page_port is None
    assert OperatorSettings.from_environment(ENV | {"COPILOT_OPERATOR_PAGE_PORT": ""}).page_port is None
    assert OperatorSettings.from_environment(ENV | {"COPILOT_OPERATOR_PAGE_PORT": "8081"}).page_port == 8081


def test_a_port_that_is_none_is_named() -> None:
    with pytest.raises(SettingsError, match="COPILOT_OPERATOR_PAGE_PORT is 'on'; write a whole number"):
        OperatorSettings.from_environment(ENV | {"COPILOT_OPERATOR_PAGE_PORT": "on"})


def test_namespaces_are_all_or_those_of_a_list() -> None:
    def watched(text: str) -> tuple[str, ...]:
        return OperatorSettings.from_environment(ENV | {"COPILOT_OPERATOR_WATCH_NAMESPACES": text}).watch_namespaces

    assert OperatorSettings.from_environment(ENV).watch_namespaces == watched("") == watched(" ") == ()
    assert watched("apps") == ("apps",)
    assert watched("team-b, team-a,team-b") == ("team-a", "team-b")


@pytest.mark.parametrize(
    ("text", "name"), [("a,,b", "''"), ("A", "'A'"), ("a b", "'a b'"), ("*", r"'\*'"), ("a,", "''"), ("a" * 64, "'a+'")]
)
def test_what_is_no_namespace_is_named(text: str, name: str) -> None:
    way_out = f"write names of namespaces, with commas between them; {name} is none"
    with pytest.raises(SettingsError, match=f"COPILOT_OPERATOR_WATCH_NAMESPACES is .*; {way_out}"):
        OperatorSettings.from_environment(ENV | {"COPILOT_OPERATOR_WATCH_NAMESPACES": text})
