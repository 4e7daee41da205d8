"""A tenant's resources on top of its pool's."""

import pytest

from copilot_operator.api.resources import ResourceOverrides, ServerResources, overlay


def test_each_resource_is_replaced_for_itself() -> None:
    tenant = ResourceOverrides(requests={"memory": "1Gi"}, limits={"cpu": "2"})
    assert overlay(ServerResources(), tenant).to_api() == {
        "requests": {"cpu": "100m", "memory": "1Gi"},
        "limits": {"memory": "2Gi", "cpu": "2"},
    }


@pytest.mark.parametrize("tenant", [None, ResourceOverrides()])
def test_absent_means_the_pools(tenant: ResourceOverrides | None) -> None:
    assert overlay(ServerResources(), tenant) == ServerResources()


def test_a_request_that_ends_above_the_pools_limit_is_told() -> None:
    tenant = ResourceOverrides(requests={"memory": "3Gi"})
    with pytest.raises(ValueError, match="the request of 3Gi memory is above the limit of 2Gi"):
        overlay(ServerResources(), tenant)
