"""Names that users write: of objects, of keys in Secrets, of labels and annotations."""

import re
from typing import Annotated, Final

from pydantic import Field

from copilot_operator.api.rules import Rule

DNS_SUBDOMAIN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
DATA_KEY: Final = r"^[-._a-zA-Z0-9]+$"
LABEL_VALUE: Final = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
OUR_PREFIXES: Final = ("copilot-operator.io/", "app.kubernetes.io/")

# A key has at most 253 characters of prefix, a slash, 63 of name; CEL needs no look-around for it.
_QUALIFIED = r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
QUALIFIED_NAME: Final = f"^{_QUALIFIED}$"
_WHOLE_QUALIFIED = re.compile(rf"{_QUALIFIED}\Z")

ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=DNS_SUBDOMAIN)]
"""The name of an object in the same namespace."""

DataKey = Annotated[str, Field(min_length=1, max_length=253, pattern=DATA_KEY)]
"""A key of a Secret or a ConfigMap."""

QualifiedName = Annotated[str, Field(min_length=1, max_length=317, pattern=QUALIFIED_NAME)]
"""The key of a label or of a taint."""

LabelValue = Annotated[str, Field(max_length=63, pattern=LABEL_VALUE)]

KEYS_ARE_QUALIFIED: Final = Rule(
    f"self.all(k, size(k) <= 317 && k.matches('{QUALIFIED_NAME}'))",
    "write keys as Kubernetes takes them: letters, digits, '-', '_' and '.', at most 63 characters, "
    "with or without a DNS name and '/' in front (example.com/team)",
    lambda entries: all(_WHOLE_QUALIFIED.match(key) for key in entries),
)
KEYS_ARE_NOT_OURS: Final = Rule(
    "self.all(k, " + " && ".join(f"!k.startsWith('{prefix}')" for prefix in OUR_PREFIXES) + ")",
    f"keys that begin with {' or '.join(OUR_PREFIXES)} are set by the operator: write keys with a prefix of your own",
    lambda entries: not any(key.startswith(OUR_PREFIXES) for key in entries),
)

Labels = Annotated[dict[str, LabelValue], Field(max_length=16), KEYS_ARE_QUALIFIED]
Annotations = Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=16), KEYS_ARE_QUALIFIED]
