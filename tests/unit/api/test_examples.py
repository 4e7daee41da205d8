"""The models judge as the API server does: both are held to the same table (``tests/e2e/test_crds.py``)."""

import pytest

from copilot_operator.api.invalid import InvalidResource
from copilot_operator.api.pool import parse_pool
from copilot_operator.api.tenant import parse_tenant
from tests.unit.api.examples import EXAMPLES, RULES, SCHEMA, Example, Object, with_fields


def read(example: Example, fields: Object) -> None:
    parse = parse_pool if example.kind == "CopilotPool" else parse_tenant
    parse(with_fields(example.base, fields))


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_models_take_what_the_api_takes(example: Example) -> None:
    read(example, example.good)


@pytest.mark.parametrize("example", [e for e in RULES if e.before is None], ids=str)
def test_models_refuse_with_the_sentence_of_the_rule(example: Example) -> None:
    with pytest.raises(InvalidResource) as refused:
        read(example, example.bad)
    assert any(example.message in problem.way_out for problem in refused.value.problems), refused.value


@pytest.mark.parametrize("example", SCHEMA, ids=str)
def test_models_refuse_what_the_schema_refuses(example: Example) -> None:
    with pytest.raises(InvalidResource) as refused:
        read(example, example.bad)
    assert refused.value.path.startswith(example.path)
