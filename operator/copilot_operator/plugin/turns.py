"""What a terminal shows of a turn: from events of a session to text. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

SUMMARY: Final = 100  # characters of a tool's arguments
TELLING: Final = (
    "command",
    "fullCommandText",
    "path",
    "fileName",
    "url",
    "pattern",
    "query",
    "description",
    "intention",
)


class What(StrEnum):
    """Kinds of what is shown."""

    TEXT = "text"  # of the answer, as it comes
    TOOL = "tool"
    ERROR = "error"
    ASK = "ask"  # for a permission; ``id`` is that of the request
    END = "end"  # of the turn


@dataclass(frozen=True)
class Shown:
    what: What
    text: str = ""
    id: str = ""


@dataclass
class Turn:
    """One turn. ``feed`` it with the events of its session, in their order."""

    prompt: str = ""
    streamed: set[str] = field(default_factory=set)  # messages whose text came in pieces
    tools: dict[str, str] = field(default_factory=dict)
    answer: str = ""
    errors: list[str] = field(default_factory=list)
    aborted: bool = False
    interrupted: bool = False  # by its user, who knows

    def feed(self, event: Mapping[str, Any]) -> list[Shown]:
        """What an event adds."""
        data = event.get("data")
        data = data if isinstance(data, dict) else {}
        kind = event.get("type")
        if data.get("parentToolCallId") and kind != "permission.requested":
            return []  # of a subagent, whose tool is shown
        match kind:
            case "assistant.message_delta":
                return self._text(str(data.get("messageId", "")), str(data.get("deltaContent") or ""))
            case "assistant.message":
                id, text = str(data.get("messageId", "")), str(data.get("content") or "")
                self.answer = text or self.answer
                return [] if id in self.streamed else self._text(id, text)
            case "tool.execution_start":
                name = str(data.get("toolName", "tool"))
                self.tools[str(data.get("toolCallId"))] = name
                return [Shown(What.TOOL, f"{name}: {summary(data.get('arguments'))}".rstrip(": "))]
            case "tool.execution_progress":
                return [Shown(What.TOOL, str(data.get("progressMessage", "")))]
            case "tool.execution_complete" if data.get("success") is False:
                name, error = self.tools.get(str(data.get("toolCallId")), "tool"), data.get("error") or {}
                return [Shown(What.TOOL, f"{name} failed: {_short(str(error.get('message', 'no word why')))}")]
            case "session.error":
                self.errors.append(str(data.get("message", "an error without a message")))
                return [Shown(What.ERROR, self.errors[-1])]
            case "session.warning":
                return [Shown(What.TOOL, f"warning: {data.get('message', '')}")]
            case "permission.requested" if not data.get("resolvedByHook"):
                request = data.get("permissionRequest") or {}
                asked = f"{request.get('kind', 'something')}: {summary(request)}".rstrip(": ")
                return [Shown(What.ASK, asked, str(data.get("requestId", "")))]
            case "abort":
                self.aborted = True
            case "session.idle":
                self.aborted = self.aborted or bool(data.get("aborted"))
                return [Shown(What.END)]
        return []

    def _text(self, id: str, text: str) -> list[Shown]:
        self.streamed.add(id)
        return [Shown(What.TEXT, text, id)] if text else []


def summary(arguments: Any) -> str:
    """Of a tool's arguments what tells most, on one line."""
    if isinstance(arguments, str):
        return _short(arguments)
    if not isinstance(arguments, dict):
        return ""
    found = next((arguments[key] for key in TELLING if isinstance(arguments.get(key), str)), None)
    plain = {key: value for key, value in arguments.items() if key not in ("kind", "toolCallId")}
    return _short(found if found is not None else json.dumps(plain, ensure_ascii=False) if plain else "")


def session_rows(answer: Any) -> list[dict[str, Any]]:
    """Documents from the answer to session.list, the last used first."""
    found = answer.get("sessions") if isinstance(answer, dict) else None
    rows = [
        {
            "id": str(each.get("sessionId", "")),
            "created": str(each.get("startTime") or ""),
            "lastUsed": str(each.get("modifiedTime") or each.get("startTime") or ""),
            "summary": str(each.get("summary") or each.get("name") or ""),
        }
        for each in found or ()
        if isinstance(each, dict)
    ]
    return sorted(rows, key=lambda row: row["lastUsed"], reverse=True)


def answer_to(prompt: str, events: Any) -> str | None:
    """The text that answers the last message among stored events; None if that is not ``prompt``, or has no answer."""
    asked, answer = "", None
    for each in events or ():
        data = each.get("data") if isinstance(each, dict) else None
        if isinstance(data, dict) and each.get("type") == "user.message":
            asked, answer = str(data.get("content") or ""), None
        elif isinstance(data, dict) and each.get("type") == "assistant.message":
            answer = str(data.get("content") or "") or answer
    return answer if asked.strip() == prompt.strip() else None


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SUMMARY else line[: SUMMARY - 1] + "…"
