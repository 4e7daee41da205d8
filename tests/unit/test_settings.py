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
