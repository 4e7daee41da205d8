"""What is looked for when secrets are searched: each kind of Secret's values, and nothing that is no secret."""

import base64
import json

import pytest

from tests.support.github import private_key
from tests.support.leaks import leaks, secret_texts


def plain(text: str) -> set[str]:
    return {each for each in secret_texts(text) if base64_of(each) in set(secret_texts(text))}


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("value", "looked_for"),
    [
        ("sk-canary-of-a-model\n", {"sk-canary-of-a-model"}),
        ("none", set()),
        ("http://models.example.com/v1", set()),
        (json.dumps({"tokens": ["a" * 64], "name": "alice", "server": "copilot-alice-and-more"}), set()),
        (json.dumps({"credential": {"gitHubToken": "gho_abcdefghijklmn"}}), {"gho_abcdefghijklmn"}),
        (
            json.dumps({"credential": {"provider": {"baseUrl": "x" * 20, "apiKey": "sk-abcdefghijkl"}}, "gateways": 2}),
            {"sk-abcdefghijkl"},
        ),
    ],
)
def test_what_is_looked_for(value: str, looked_for: set[str]) -> None:
    assert plain(value) == looked_for


def test_of_a_private_key_each_line_counts_and_its_frame_does_not() -> None:
    found = plain(private_key())
    assert len(found) > 20
    assert not any("BEGIN" in each for each in found)


def test_a_leak_is_told_without_telling_the_secret() -> None:
    known = dict.fromkeys(secret_texts("sk-canary-of-a-model"), "model/key")
    for said in ("key sk-canary-of-a-model!", f"data: {base64_of('sk-canary-of-a-model')}"):
        assert leaks(known, iter([("an Event", said)])) == ["model/key is in an Event"]
    assert leaks(known, iter([("an Event", "the key of model")])) == []
