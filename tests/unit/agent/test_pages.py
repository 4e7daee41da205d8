"""Settings, pages and readings of the agent: pure parts, whole values."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from copilot_operator.agent import metrics
from copilot_operator.agent.claims import Claimed
from copilot_operator.agent.deep import DeepReading
from copilot_operator.agent.eraser import Erased
from copilot_operator.agent.janitor import Deletion, Tally
from copilot_operator.agent.observer import Sessions
from copilot_operator.agent.policy import Policy
from copilot_operator.agent.settings import Settings, SettingsError
from copilot_operator.agent.state import State
from copilot_operator.agent.usage import Disk, Processes, read_disk, read_line, read_processes, takes_no_writes
from copilot_operator.agent.web import BadRequest, parse_head
from copilot_operator.rpc.busy import Count, Standing, Work
from copilot_operator.rpc.ping import Failure, Reading


def a_state(reading: Reading | None = None, sessions: Sessions | None = None, disk: Disk | None = None) -> State:
    return State(
        version="1.2.3",
        reading=reading or Reading(ok=True, latency_s=0.0012, version="1.0.102"),
        probe_failures={Failure.SILENT: 2},
        sessions=sessions,
        quiet_s=1.25,
        processes=Processes(count=2, memory_bytes=300_000_000_001),
        disk=disk,
        drain=None,
        now=100.0,
    )


SOME_SESSIONS = Sessions(
    {"a": Standing.BUSY},
    Count(loaded=3, busy=2, waiting=1, uncounted=0),
    stored=7,
    at=99.0,
    work={"a": Work.TURN, "b": Work.WAITING},
    silent_s=61.23,
)


def test_settings_come_from_the_environment_and_hide_the_token() -> None:
    given = {"COPILOT_CONNECTION_TOKEN": "s3cret", "COPILOT_AGENT_CLI_PORT": "1234", "COPILOT_AGENT_DATA": "/x"}
    settings = Settings.from_environment(given)
    assert (settings.token, settings.cli_host, settings.cli_port, settings.port) == ("s3cret", "127.0.0.1", 1234, 4322)
    assert (settings.data, settings.drain_deadline_s) == (Path("/x"), 540)
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "99999999999", "٣"])
def test_a_setting_that_is_no_number_is_refused_by_name(value: str) -> None:
    with pytest.raises(SettingsError, match="COPILOT_AGENT_PORT must be a whole number"):
        Settings.from_environment({"COPILOT_AGENT_PORT": value})


def test_state_of_a_server_that_works() -> None:
    state = replace(
        a_state(sessions=SOME_SESSIONS, disk=Disk(100, 40, 60)),
        met_at=39.5,
        latency_factor=1.2494,
        deep=DeepReading(False, "no answer", at=88.0),
        policy=Policy(3600.0, False, 30.0),
        tally=Tally(9, 3, 81_000, None, 0.3456, "", Deletion("2026-11-24T04:00:00Z", 2, 54_000)),
        erased=Erased({"abcdefgh": 2}, 5, "the server is being drained"),
        quarantined=[f"broken.{number}" for number in range(7)],
        largest=[("a", 30)],
    )
    assert state.document() == {
        "agentVersion": "1.2.3",
        "cli": {
            "answering": True,
            "latencySeconds": 0.0012,
            "version": "1.0.102",
            "failure": None,
            "ageSeconds": 60.5,
            "latencyFactor": 1.25,
            "deep": {"ok": False, "secondsAgo": 12.0, "message": "no answer"},
        },
        "sessions": {
            "loaded": 3,
            "busy": 2,
            "waiting": 1,
            "uncounted": 0,
            "waitForRoom": 0,
            "stored": 7,
            "secondsSinceActivity": 1.2,
            "stalledSeconds": 61.2,
            "work": {"turn": 1, "task": 0, "queued": 0, "waiting": 1, "unknown": 0},
        },
        "memoryBytes": 300_000_000_001,
        "processes": 2,
        "disk": {
            "capacityBytes": 100,
            "usedBytes": 40,
            "freeBytes": 60,
            "readOnly": False,
            "largestSessions": [{"id": "a", "bytes": 30}],
        },
        "expiry": {
            "ttlSeconds": 3600.0,
            "dryRun": False,
            "wouldDelete": None,
            "deleted": 3,
            "freedBytes": 81_000,
            "passes": 9,
            "lastPassSeconds": 0.35,
            "failure": None,
            "lastDeletion": {"time": "2026-11-24T04:00:00Z", "sessions": 2, "freedBytes": 54_000},
        },
        "erasure": {"erased": {"abcdefgh": 2}, "sessions": 5, "failure": "the server is being drained"},
        "quarantined": {"count": 7, "latest": [f"broken.{number}" for number in range(5)]},
        "ephemeral": {"stored": 0, "erased": 0},
        "tokenSerial": None,
        "credentialRefused": None,
        "draining": None,
    }


def test_what_could_not_be_counted_is_null_and_not_zero() -> None:
    document = a_state(Reading(ok=False, failure=Failure.SILENT, message="...")).document()
    assert document["cli"] == {
        "answering": False,
        "latencySeconds": None,
        "version": None,
        "failure": "Silent",
        "ageSeconds": None,
        "latencyFactor": None,
        "deep": None,
    }
    counts = ("loaded", "busy", "waiting", "uncounted", "stored", "stalledSeconds", "work")
    assert [document["sessions"][name] for name in counts] == [None] * 7
    assert document["disk"] is None
    assert json.loads(json.dumps(document)) == document


def test_metrics_are_whole_numbers_with_labels_and_leave_out_what_is_unknown() -> None:
    lines = metrics.text(a_state(sessions=SOME_SESSIONS, disk=Disk(100, 40, 60))).splitlines()
    samples = [line for line in lines if not line.startswith("#")]
    assert samples == [
        'copilot_agent_info{version="1.2.3"} 1',
        "copilot_cli_up 1",
        'copilot_cli_info{version="1.0.102"} 1',
        "copilot_cli_ping_seconds 0.0012",
        'copilot_cli_ping_failures_total{reason="Refused"} 0',
        'copilot_cli_ping_failures_total{reason="Silent"} 2',
        'copilot_cli_ping_failures_total{reason="AuthenticationFailed"} 0',
        'copilot_cli_ping_failures_total{reason="ProtocolError"} 0',
        'copilot_cli_ping_failures_total{reason="Lost"} 0',
        'copilot_server_sessions{state="loaded"} 3',
        'copilot_server_sessions{state="busy"} 2',
        'copilot_server_sessions{state="waiting"} 1',
        'copilot_server_sessions{state="uncounted"} 0',
        'copilot_server_sessions{state="stored"} 7',
        'copilot_server_busy_sessions{work="turn"} 1',
        'copilot_server_busy_sessions{work="task"} 0',
        'copilot_server_busy_sessions{work="queued"} 0',
        'copilot_server_busy_sessions{work="waiting"} 1',
        'copilot_server_busy_sessions{work="unknown"} 0',
        "copilot_server_sessions_evicted_total 0",
        "copilot_server_sessions_refused_total 0",
        "copilot_server_sessions_waiting_for_room 0",
        "copilot_server_waiting_to_speak 0",
        "copilot_server_stalled_seconds 61.2",
        "copilot_server_memory_bytes 300000000001",
        "copilot_server_processes 2",
        "copilot_server_disk_capacity_bytes 100",
        "copilot_server_disk_free_bytes 60",
        "copilot_server_disk_read_only 0",
        "copilot_server_expired_sessions_deleted_total 0",
        "copilot_server_expired_sessions_freed_bytes_total 0",
        "copilot_server_erased_sessions_total 0",
        "copilot_server_quarantined_sessions 0",
        "copilot_server_janitor_passes_total 0",
        "copilot_server_ephemeral_sessions 0",
        "copilot_server_ephemeral_sessions_erased_total 0",
        "copilot_server_draining 0",
        "copilot_server_drain_cut_turns 0",
    ]
    unknown = metrics.text(a_state(Reading(ok=False, failure=Failure.SILENT)))
    assert "copilot_cli_up 0" in unknown
    assert "copilot_server_sessions" not in unknown
    assert "copilot_cli_ping_seconds" not in unknown


def test_every_metric_has_help_and_a_type() -> None:
    lines = metrics.text(a_state(sessions=SOME_SESSIONS, disk=Disk(1, 1, 0))).splitlines()
    named = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert named == {line.split("{")[0].split()[0] for line in lines if not line.startswith("#")}
    assert named == {line.split()[2] for line in lines if line.startswith("# HELP")}


def test_processes_leave_out_the_agent_the_pause_process_and_zombies(tmp_path: Path) -> None:
    page = 4096
    for pid, statm in {"1": "9 9", "7": "100 10 5", "8": "50 3 1", "9": "0 0 0", "10": "20 20"}.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "statm").write_text(statm)
    (tmp_path / "self").mkdir()
    (tmp_path / "11").mkdir()  # gone before it was read
    found = read_processes(tmp_path, own_pid=10)
    assert found == Processes(count=2, memory_bytes=13 * page)


def test_a_volume_that_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    disk = read_disk(tmp_path)
    assert disk is not None
    assert disk.capacity_bytes == disk.used_bytes + disk.free_bytes > 0
    assert read_disk(tmp_path / "absent") is None


def test_claims_are_counted_where_servers_share_a_volume_and_else_left_out() -> None:
    lines = metrics.text(replace(a_state(), claims=Claimed(held=3, refused=2, taken_over=1))).splitlines()
    samples = [line for line in lines if line.startswith("copilot_server_claims")]
    assert samples == [
        "copilot_server_claims 3",
        "copilot_server_claims_refused_total 2",
        "copilot_server_claims_taken_over_total 1",
    ]
    assert "claims" not in metrics.text(a_state())


MOUNTS = """\
36 35 98:0 / / rw,noatime - ext4 /dev/root rw,errors=continue
37 36 8:1 /a /data ro,relatime master:1 - ext4 /dev/sda rw,discard
38 36 8:2 /b /data/sub\\040volume rw - xfs /dev/sdb ro,attr2
39 36 8:3 / /failed ro - ext4 /dev/sdc rw,errors=remount-ro,emergency_ro
40 39 8:4 / /failed rw - tmpfs tmpfs rw,mode=755
41 36 8:5 / /error rw shared:3 - ext4 /dev/sdd rw,errors=remount-ro,emergency_ro
42 36 0:9 / /sandboxed ro - 9p none ro,dfltuid=4294967294
"""


@pytest.mark.parametrize(
    ("path", "takes_none"),
    [
        ("/elsewhere", False),
        ("/data/copilot", False),
        ("/data/sub volume/x", True),
        ("/data/sub", False),
        ("/failed", False),
        ("/error/copilot", True),
        ("/sandboxed/copilot", False),
    ],
)
def test_a_file_system_that_takes_no_writes_is_known_however_it_is_mounted(path: str, takes_none: bool) -> None:
    assert takes_no_writes(Path(path), MOUNTS) is takes_none


def test_a_file_server_that_takes_no_writes_is_known_by_what_the_cli_says() -> None:
    said = "session construction failed: EROFS: Read-only file system (os error 30)"
    assert replace(a_state(), deep=DeepReading(False, said, at=88.0)).read_only
    assert not replace(a_state(), deep=DeepReading(False, "no answer", at=88.0)).read_only


def test_a_request_is_a_path_and_its_query() -> None:
    assert parse_head(b"GET /drain?deadline_s=5&x HTTP/1.1\r\nHost: y\r\n\r\n") == (
        "/drain",
        {"deadline_s": "5", "x": ""},
    )


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /drain HTTP/1.1\r\n\r\n", 405),
        (b"GET /\r\n\r\n", 400),
        (b"GET / SMTP/1.1\r\n\r\n", 400),
        (b"\xff\xff\xff\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
    ],
)
def test_what_is_not_served_is_refused(head: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_head(head)
    assert caught.value.status == status


def test_the_serial_of_the_token_is_what_the_script_wrote(tmp_path: Path) -> None:
    (tmp_path / "token-serial").write_text("0a1b\n")
    assert read_line(tmp_path / "token-serial") == "0a1b"
    assert read_line(tmp_path / "none") == ""


def test_what_stands_in_place_of_the_serial_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the agent")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "long").write_text("x" * 1000)
    assert read_line(tmp_path / "link") == ""
    assert read_line(tmp_path / "pipe") == ""
    assert read_line(tmp_path) == ""
    assert len(read_line(tmp_path / "long")) == 64
