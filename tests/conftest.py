"""For all tests."""

from hypothesis import HealthCheck, settings

# No test times the machine: hypothesis would, by default.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
