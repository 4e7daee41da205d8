"""Every file of the docs, and every dashboard, that is made from the code, by its path in the checkout."""

from tests.docs import alerts, api, dashboards, metrics, pictures


def files() -> dict[str, str]:
    return {
        "docs/api.md": api.page(),
        "docs/metrics.md": metrics.page(),
        alerts.PAGE: alerts.page(),
        **dashboards.files(),
        **pictures.files(),
    }
