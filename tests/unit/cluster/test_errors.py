"""What an answer of the API server means: by type, and when to try again."""

import json

import pytest

from copilot_operator.cluster.errors import (
    Absent,
    ApiError,
    Conflict,
    Ending,
    Expired,
    Forbidden,
    Refused,
    Unavailable,
    from_answer,
)


def status(reason: str, message: str) -> bytes:
    return json.dumps({"kind": "Status", "reason": reason, "message": message}).encode()


def test_a_namespace_that_is_being_deleted_is_told_from_a_missing_permission() -> None:
    refusal = {"reason": "Forbidden", "message": "no", "details": {"causes": [{"reason": "NamespaceTerminating"}]}}
    assert type(from_answer("patch /x", 403, json.dumps(refusal).encode(), None)) is Ending


TYPES: dict[type[ApiError], tuple[int, ...]] = {
    Absent: (404,),
    Conflict: (409,),
    Expired: (410,),
    Forbidden: (403,),
    Refused: (400, 405, 413, 415, 422),
    Unavailable: (401, 429, 500, 502, 503, 504),  # 401: a token that is about to be renewed
}


@pytest.mark.parametrize(("code", "kind"), [(code, kind) for kind, codes in TYPES.items() for code in codes])
def test_each_status_has_its_type(code: int, kind: type[ApiError]) -> None:
    error = from_answer("patch /x", code, status("Why", "because"), None)
    assert type(error) is kind
    assert (error.status, error.reason, error.message) == (code, "Why", "because")
    assert str(error) == f"patch /x: {code} Why: because"


def test_an_apply_that_no_retry_cures_is_a_refusal_although_it_says_500() -> None:
    body = status("InternalError", "failed to create typed patch object (apps/x): duplicate entries for key")
    assert type(from_answer("patch /x", 500, body, None)) is Refused


@pytest.mark.parametrize(
    "body", [b"", b"<html>Bad Gateway</html>", b"[]", b'"text"', b"\xff\xfe", b'{"reason":', b"x" * 10_000]
)
def test_a_proxys_error_page_is_an_answer_too(body: bytes) -> None:
    error = from_answer("get /x", 502, body, None)
    assert type(error) is Unavailable
    assert len(error.message) <= 500


@pytest.mark.parametrize(("header", "seconds"), [(None, 0.0), ("7", 7.0), ("soon", 0.0), ("-1", 0.0), ("", 0.0)])
def test_the_server_may_say_when_to_come_again(header: str | None, seconds: float) -> None:
    assert from_answer("get /x", 429, b"{}", header).retry_after_s == seconds


def test_without_an_answer_there_is_no_status_to_tell() -> None:
    assert str(Unavailable("get /x", 0, "", "no answer within 15 s")) == "get /x: no answer within 15 s"
