"""Documents for programs: ``-o json`` and ``-o yaml``."""

import json
from typing import Any

from copilot_operator.plugin.errors import PluginError


def document_text(document: Any, form: str) -> str:
    """The document as text; keys stay in their order."""
    if form == "json":
        return json.dumps(document, indent=2, ensure_ascii=False)
    if form == "yaml":
        import yaml

        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).rstrip()
    raise PluginError(f"-o {form}: write json or yaml")
