"""The few requests to the API server that starting a cluster takes, with the standard library alone."""

import base64
import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class KubeApi:
    """Speaks to the API server that a kubeconfig of ours names (they are written as JSON)."""

    server: str
    token: str
    tls: ssl.SSLContext

    @classmethod
    def of(cls, kubeconfig: Path) -> "KubeApi":
        content = json.loads(kubeconfig.read_text())
        cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        return cls(cluster["server"], user["token"], ssl.create_default_context(cadata=authority))

    def request(self, method: str, path: str, body: Any = None, timeout_s: float = 5) -> tuple[int, str]:
        """Status and text of an answer; status 0 and the reason when there is none."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        question = urllib.request.Request(self.server + path, data, headers, method=method)
        # The machine's proxy settings are for the world outside.
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self.tls)
        )
        try:
            with opener.open(question, timeout=timeout_s) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")
        except (OSError, ValueError) as error:
            return 0, str(error)

    def ready(self) -> bool:
        return self.request("GET", "/readyz")[0] == 200

    def get(self, path: str) -> dict[str, Any]:
        """An object, or nothing where there is none (yet)."""
        status, text = self.request("GET", path)
        found: dict[str, Any] = json.loads(text) if status == 200 else {}
        return found
