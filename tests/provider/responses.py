"""The JSON of the Responses API: whole responses, compactions, events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from budgetguard.testing.openai_server import CREATED
from tests.provider.reply import Draft
from tests.provider.sse import Event, call_id, sse


def response(draft: Draft, *, done: bool, status: str | None = None) -> dict[str, Any]:
    """Return a response as it stands when it is begun, or `done`.

    Args:
        draft: the answer.
        done: it has ended.
        status: while it has not, such as `queued`.
    """
    cut = draft.finish == "length" and draft.ends is None
    if done:
        status = draft.ends or ("incomplete" if cut else "completed")
    elif status is None:
        status = "queued" if draft.background else "in_progress"
    served = done and status in ("completed", "incomplete")
    tool_usage = {} if draft.tool_usage is None or not served else {"tool_usage": dict(draft.tool_usage)}
    return {
        "id": f"resp_{draft.number:06d}",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "background": draft.background,
        "error": {"code": "server_error", "message": "The model failed."} if status == "failed" else None,
        "incomplete_details": {"reason": "max_output_tokens"} if done and cut else None,
        "instructions": None,
        "metadata": {},
        "model": draft.model,
        "output": _output_items(draft) if served else [],
        "parallel_tool_calls": True,
        "service_tier": draft.tier if done else "auto",
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [dict(tool) for tool in draft.tools if tool.get("type") != "function"],
        "top_p": 1.0,
        "usage": draft.usage() if served and not draft.omit_usage else None,
        **tool_usage,
    }


def compaction(draft: Draft) -> dict[str, Any]:
    """Return the answer to a compaction: one item that stands for all turns."""
    item = {"id": f"cmp_{draft.number:06d}", "type": "compaction", "encrypted_content": "gAAAAA" * 200}
    return {
        "id": f"resp_{draft.number:06d}",
        "object": "response.compaction",
        "created_at": CREATED,
        "output": [item],
        **({} if draft.omit_usage else {"usage": draft.usage()}),
    }


def events(draft: Draft) -> Iterator[Event]:
    """Yield the events of a streamed response, in the order of the wire."""
    number = -1

    def event(kind: str, *, content: bool = False, **values: Any) -> Event:
        nonlocal number
        number += 1
        payload = {"type": kind, "sequence_number": number, **values}
        return sse(payload, name=kind, choice=0 if content else None)

    begun = response(draft, done=False)
    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    for slot, item in enumerate(_output_items(draft)):
        place = {"item_id": item["id"], "output_index": slot}
        if item["type"] not in ("function_call", "message"):
            yield event(
                "response.output_item.added", output_index=slot, item={**item, "status": "in_progress"}
            )
            yield event("response.output_item.done", output_index=slot, item=item)
            continue
        if item["type"] == "function_call":
            started = {**item, "arguments": "", "status": "in_progress"}
            yield event("response.output_item.added", output_index=slot, item=started)
            for owner, piece in draft.pieces:
                if owner == slot - len(draft.hosted):
                    kind = "response.function_call_arguments.delta"
                    yield event(kind, content=True, **place, delta=piece)
            kind = "response.function_call_arguments.done"
            yield event(kind, **place, name=item["name"], arguments=item["arguments"])
        else:
            started = {**item, "content": [], "status": "in_progress"}
            yield event("response.output_item.added", output_index=slot, item=started)
            place["content_index"] = 0
            part = item["content"][0]
            yield event("response.content_part.added", **place, part={**part, "text": ""})
            for _, piece in draft.pieces:
                kind = "response.output_text.delta"
                yield event(kind, content=True, **place, delta=piece, logprobs=[])
            yield event("response.output_text.done", **place, text=draft.text, logprobs=[])
            yield event("response.content_part.done", **place, part=part)
        yield event("response.output_item.done", output_index=slot, item=item)
    done = response(draft, done=True)
    yield event(f"response.{done['status']}", response=done)


def _output_items(draft: Draft) -> list[dict[str, Any]]:
    hosted = [{"id": f"ht_{draft.number:06d}_{slot}", **item} for slot, item in enumerate(draft.hosted)]
    return [*hosted, *_own_items(draft)]


def _own_items(draft: Draft) -> list[dict[str, Any]]:
    status = "incomplete" if draft.finish == "length" else "completed"
    if not draft.tool_calls:
        part: dict[str, Any] = {"type": "output_text", "text": draft.text, "annotations": [], "logprobs": []}
        name = f"msg_{draft.number:06d}"
        return [
            {"id": name, "type": "message", "role": "assistant", "status": status, "content": [part]},
        ]
    return [
        {
            "id": f"fc_{draft.number:06d}_{slot}",
            "call_id": call_id(draft, 0, slot),
            "type": "function_call",
            "name": name,
            "arguments": arguments,
            "status": status,
        }
        for slot, (name, arguments) in enumerate(draft.tool_calls)
    ]
