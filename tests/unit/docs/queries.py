"""What of PromQL asks for metrics and labels that there are."""

import re

from tests.docs.metrics import all_metrics

COLLECTED = {"namespace", "pool", "tenant", "pod", "le"}  # labels by who collects metrics, and of buckets
METRICS = {series: metric for metric in all_metrics() for series in metric.series}


def complaints(query: str) -> list[str]:
    """What is asked for and does not exist."""
    names = set(re.findall(r"\bcopilot_\w+", query))
    wrong = [f"no metric {name}" for name in names if name not in METRICS]
    known = {label for name in names & METRICS.keys() for label in METRICS[name].labels} | COLLECTED
    used = re.findall(r"\bby \(([^)]*)\)", query)
    for label in {each.strip() for group in used for each in group.split(",")}:
        wrong += [] if label in known else [f"no label {label}"]
    for name, matchers in re.findall(r"(copilot_\w+)\{([^}]*)\}", query):
        for label, _, value in re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', matchers):
            if label in COLLECTED:
                continue
            values = METRICS[name].labels.get(label, ()) if name in METRICS else ()
            wrong += [f"{name} has no {label}={each}" for each in value.split("|") if each not in values]
    return sorted(wrong)
