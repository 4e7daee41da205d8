"""A kubectl that answers from a table, for commands as a whole."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner, Result

from copilot_operator.plugin.program import cli

PROGRAM: Final = """#!{python}
import json, pathlib, socket, sys, threading


def pipe(source, target):
    while data := source.recv(65536):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)


def forward(port):
    listener = socket.create_server(("127.0.0.1", 0))
    print("Forwarding from 127.0.0.1:%d -> 4321" % listener.getsockname()[1], flush=True)
    while True:
        here, there = listener.accept()[0], socket.create_connection(("127.0.0.1", port))
        for ends in ((here, there), (there, here)):
            threading.Thread(target=pipe, args=ends, daemon=True).start()


here = pathlib.Path(__file__).parent
words = [word for word in sys.argv[1:] if not word.startswith(("--request-timeout", "--context", "--kubeconfig"))]
with open(here / "asked", "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
if words[:2] == ["config", "view"]:
    print("team", end="")
    sys.exit()
table = json.loads((here / "answers").read_text())
if words[0] == "port-forward":
    forward(table["port-forward"])
key = words[2].split("?")[0] if words[:2] == ["get", "--raw"] else words[0]
answer = table.get(key)
if answer is None:
    sys.exit('Error from server (NotFound): "%s" not found' % key)
if isinstance(answer, str):
    sys.exit(answer)
print(json.dumps(answer))
"""


@dataclass
class FakeKubectl:
    """``answers``: by path for reads, by verb for the rest; a text is what it complains of."""

    directory: Path
    answers: dict[str, Any]

    def run(self, *words: str, stdin: str = "") -> Result:
        (self.directory / "answers").write_text(json.dumps(self.answers))
        return CliRunner().invoke(cli, list(words), input=stdin)

    @property
    def asked(self) -> list[list[str]]:
        log = self.directory / "asked"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeKubectl:
    program = tmp_path / "kubectl"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("KUBECTL", str(program))
    return FakeKubectl(tmp_path, {})
