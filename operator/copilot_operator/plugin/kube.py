"""The cluster, through kubectl: one child process for each question, each with a deadline.

Reads go to exact paths (``get --raw``), so that no discovery comes before them.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from copilot_operator.domain.kinds import Kind
from copilot_operator.domain.manifest import Manifest
from copilot_operator.plugin.errors import KubectlError, PluginError

MANAGER: Final = "kubectl-copilot"
REQUEST_S: Final = 15.0
LOGIN_S: Final = 60.0  # what a credential plugin may take beside the request itself
PAGE: Final = 500
SAID: Final = re.compile(r"^Error from server(?: \((\w+)\))?: (.*)", re.DOTALL)
NO_SUCH_KIND: Final = "the server could not find the requested resource"
UNREACHABLE: Final = ("refused", "no such host", "timeout", "deadline exceeded", "Unable to connect", "i/o timeout")


@dataclass(frozen=True)
class Kubectl:
    """kubectl with the options that its user gave."""

    program: str
    context: str = ""
    kubeconfig: str = ""
    request_s: float = REQUEST_S

    @classmethod
    def find(cls, context: str = "", kubeconfig: str = "", request_s: float = REQUEST_S) -> "Kubectl":
        """``$KUBECTL``, else the kubectl on the path."""
        program = os.environ.get("KUBECTL") or shutil.which("kubectl")
        if not program:
            raise PluginError("kubectl is not on the path: install it, or set KUBECTL to where it is")
        return cls(program, context, kubeconfig, request_s)

    def argv(self, *words: str) -> list[str]:
        """A command line of kubectl."""
        chosen = [f"--context={self.context}"] if self.context else []
        chosen += [f"--kubeconfig={self.kubeconfig}"] if self.kubeconfig else []
        return [self.program, *words[:1], *chosen, *words[1:]]

    def run(self, *words: str, stdin: str | None = None, timeout_s: float | None = None) -> str:
        """What kubectl prints; raises KubectlError with what it complained of."""
        limit_s = timeout_s or self.request_s
        command = [*self.argv(*words), f"--request-timeout={limit_s:g}s"]
        what = f"kubectl {' '.join(_shown(words))}"
        try:
            done = subprocess.run(
                command, input=stdin, capture_output=True, text=True, timeout=limit_s + LOGIN_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise KubectlError(
                what, "Timeout", f"no answer within {error.timeout:g} s",
                "Is the cluster up? --request-timeout sets how long to wait.",
            ) from None  # fmt: skip
        except OSError as error:
            raise KubectlError(what, "", f"{self.program}: {error.strerror}") from None
        if done.returncode:
            raise complaint(what, done.stderr, self.context)
        return done.stdout

    def namespace(self) -> str:
        """The namespace of the context."""
        path = "jsonpath={..namespace}"
        return self.run("config", "view", "--minify", "--output", path).strip() or "default"

    def get(self, kind: Kind, namespace: str, name: str) -> Manifest:
        found: Manifest = self.raw(kind.path(namespace, name))
        return {"apiVersion": kind.api_version, "kind": kind.kind, **found}

    def seek(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """None if there is none."""
        try:
            return self.get(kind, namespace, name)
        except KubectlError as error:
            if error.reason == "NotFound" and NO_SUCH_KIND not in error.message:
                return None
            raise

    def list(self, kind: Kind, namespace: str = "", *, labels: str = "", fields: str = "") -> list[Manifest]:
        """All of them, page by page; without ``namespace`` of all namespaces."""
        query = {"limit": str(PAGE), "labelSelector": labels, "fieldSelector": fields}
        found: list[Manifest] = []
        while True:
            page = self.raw(f"{kind.path(namespace)}?{urlencode({k: v for k, v in query.items() if v})}")
            found += [{"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in page.get("items") or ()]
            query["continue"] = page.get("metadata", {}).get("continue", "")
            if not query["continue"]:
                return found

    def raw(self, path: str) -> Any:
        """The JSON at a path of the API server."""
        text = self.run("get", "--raw", path)
        try:
            return json.loads(text)
        except ValueError:
            what = f"kubectl get --raw {path}"
            raise KubectlError(what, "", f"expected JSON, found: {text[:80]!r}", "Is that an API server?") from None

    def merge(self, kind: Kind, namespace: str, name: str, change: Manifest) -> Manifest:
        """JSON merge patch; the object as stored."""
        words = ["patch", f"{kind.plural}.{kind.version}.{kind.group}", name, f"--namespace={namespace}"]
        options = ["--type=merge", f"--field-manager={MANAGER}", "--output=json", f"--patch={json.dumps(change)}"]
        stored: Manifest = json.loads(self.run(*words, *options))
        return stored

    def review(self, documents: Sequence[Manifest]) -> Sequence[Manifest]:
        """The answers to reviews (SelfSubjectAccessReview), in their order."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(documents)})
        return json_documents(self.run("create", "--filename=-", "--output=json", stdin=text))


def json_documents(text: str) -> list[Manifest]:
    """JSON documents one after the other, as kubectl prints several, or the items of a List."""
    decoder, place = json.JSONDecoder(), 0
    found: list[Manifest] = []
    while place < len(text):
        document, place = decoder.raw_decode(text, place)
        found += document["items"] if document.get("kind") == "List" else [document]
        place += len(text[place:]) - len(text[place:].lstrip())
    return found


def complaint(what: str, stderr: str, context: str = "") -> KubectlError:
    """What kubectl wrote to its standard error, as an error with a way out."""
    text = stderr.strip()
    lines = [line for line in text.splitlines() if not re.match(r"[EWI]\d{4} ", line)]  # its own log
    text = "\n".join(lines).strip() or text or "failed without a word"
    reason = ""
    if said := SAID.match(text):
        reason, text = said[1] or "", said[2].strip()
    return KubectlError(what, reason, text, _way_out(reason, text, context))


def _way_out(reason: str, message: str, context: str) -> str:
    if NO_SUCH_KIND in message:
        return "Is the operator installed there (kubectl apply --server-side -k crds)? See: kubectl copilot doctor"
    if reason == "Forbidden":
        return "Ask for that right; kubectl copilot doctor lists those that the plugin needs."
    if any(word in message for word in UNREACHABLE):
        chosen = f"context {context}" if context else "the current context"
        return f"Is the cluster of {chosen} up? See: kubectl cluster-info"
    return ""


def _shown(words: Sequence[str]) -> Sequence[str]:
    """Without the long documents."""
    return [word for word in words if not word.startswith(("--output", "--patch", "--field-manager"))]
