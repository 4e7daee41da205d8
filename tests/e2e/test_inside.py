"""What a hostile agent inside of a server reaches: as its tools run, in the real pod. docs/security.md tells all that
is found here, and nothing else may be."""

import json
import re
from pathlib import Path
from typing import Any, Final

from tests.cluster.image_npm import pinned_cli
from tests.support.place import Place

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "security.md"
LOOK: Final = r"""
say() { printf '%s\t%s\n' "$1" "$2"; }
say uid "$(id -u)"; say groups "$(id -G)"
while read -r field value; do
    case $field in CapEff: | CapBnd: | NoNewPrivs: | Seccomp:) say "${field%:}" "$value" ;; esac
done </proc/self/status
env | sed 's/=.*//' | sort -u | while read -r name; do say env "$name"; done
while read -r _ directory _; do
    case $directory in /proc/* | /sys/*) continue ;; esac
    [ ! -d "$directory" ] || [ ! -w "$directory" ] || say writable "$directory"
done </proc/mounts
for directory in / /bin /usr /usr/local/bin /etc /opt /opt/copilot /opt/copilot-cache /var /root /home /run; do
    [ ! -w "$directory" ] || say writable "$directory"
done
[ ! -e /var/run/secrets ] || say secrets "$(find /var/run/secrets | tr '\n' ' ')"
for process in /proc/[0-9]*; do
    owner=$(stat -c %u "$process" 2>/dev/null) || continue
    [ "$owner" != "$(id -u)" ] || continue
    for file in environ mem maps root/etc/hostname cwd/. fd/0; do
        (: <"$process/$file") 2>/dev/null && say "reads of uid $owner" "$file"
    done
    kill -0 "${process#/proc/}" 2>/dev/null && say "signals uid" "$owner"
done
while read -r _ address _ state _; do
    [ "$state" = 0A ] || continue # it listens (the first line is the table's head)
    port=$((16#${address##*:}))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && say port "$port"
done < <(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null)
true
"""
OPEN: Final = {"4321", "4322", "4323"}
ENVIRONMENT: Final = {"COPILOT_CONNECTION_TOKEN", "COPILOT_SDK_AUTH_TOKEN"}
"""Of it the secrets: the server's own token, and its GitHub token where the tenant or the pool has one."""
PLAIN: Final = {"HOME", "COPILOT_HOME", "COPILOT_CACHE_HOME", "HOSTNAME", "LANG", "PATH", "PWD", "SHLVL", "_", "OLDPWD"}
WRITABLE: Final = {"/data", "/logs", "/tmp", "/dev/shm", "/dev/mqueue"}


def found_in(text: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        name, _, value = line.partition("\t")
        found.setdefault(name, set()).add(value)
    return found


async def test_a_hostile_agent_reaches_what_the_document_says_and_no_more(place: Place, provider: Any) -> None:
    place.secret("github", {"token": "gho_ofTheTenantInside"})
    place.secret("model", {"key": "sk-of-the-pools-model"})
    key = {"apiKeySecretRef": {"name": "model", "key": "key"}}
    paid = {"provider": {"type": "openai", "baseUrl": provider["base_url"], "wireApi": "completions"} | key}
    github = provider["base_url"].removesuffix("/v1")
    server = place.pool()["spec"]["server"] | {"env": [{"name": "COPILOT_DEBUG_GITHUB_API_URL", "value": github}]}
    place.pool("behind", gateway={"enabled": True, "replicas": 1}, auth=paid, server=server)
    place.tenant("eve", "behind", auth={"gitHub": {"tokenSecretRef": {"name": "github", "key": "token"}}})
    await place.until_ready("eve", within_s=120)
    (pod,) = place.pods("eve")
    words = ["exec", pod["metadata"]["name"], "-c", "copilot", "--", "bash", "-c", LOOK]
    found = found_in(place.kube.kubectl("-n", place.namespace, *words))

    assert (found["uid"], found["groups"]) == ({"10001"}, {"10001"})
    assert found["CapEff"] == found["CapBnd"] == {"0" * 16}
    assert (found["NoNewPrivs"], found["Seccomp"]) == ({"1"}, {"2"})
    names = found["env"] - PLAIN - {"COPILOT_DEBUG_GITHUB_API_URL"}
    assert {each for each in names if not re.fullmatch(r"KUBERNETES_(SERVICE|PORT)\w*", each)} == ENVIRONMENT
    assert found["writable"] == WRITABLE
    assert "secrets" not in found, "a service account's token"
    assert {each for each in found if each.startswith(("reads of", "signals"))} == set(), "another user's process"
    assert found["port"] == OPEN

    told = DOCUMENT.read_text()
    for name in (*ENVIRONMENT, *WRITABLE, *OPEN):
        assert f"`{name}`" in told, f"docs/security.md does not tell of {name}"
    bill = json.loads(place.kube.kubectl("-n", place.namespace, *words[:5], "cat", "/opt/copilot/sbom.cdx.json"))
    assert pinned_cli().version in {each["version"] for each in bill["components"] if each["type"] == "application"}
    assert {"ca-certificates", "openssl"} <= {each["name"] for each in bill["components"]}
    template = json.dumps(place.deployment("eve"))
    assert "sk-of-the-pools-model" not in template
    assert "model" not in {each.get("secret", {}).get("secretName") for each in pod["spec"]["volumes"]}
