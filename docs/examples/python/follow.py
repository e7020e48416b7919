"""Prints what is said in a room, and goes on exactly where it stopped: python3 follow.py ROOM [COUNT]

TOKEN is its token, if chat-api asks for one. The position is kept in a file; COUNT ends it after so many messages.
"""

import asyncio
import json
import os
import pathlib
import random
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidMessage, InvalidStatus

CHAT = "ws://localhost:8080/api/chat-api/ws"
#: After these another socket would fare no better.
FINAL = {1002, 1003, 1007, 1009, 4401, 4403}


async def follow(room: str, count: int) -> None:
    position = pathlib.Path(f"{room}.position")
    headers = {"Authorization": f"Bearer {os.environ['TOKEN']}"} if "TOKEN" in os.environ else {}
    failures, least_s = 0, 0.0
    while True:
        after = position.read_text() if position.exists() else "0-0"  # from the beginning
        try:
            async with connect(f"{CHAT}/{room}?after={after}", additional_headers=headers, subprotocols=["chat.v1"]) as socket:
                failures = 0
                async for text in socket:
                    frame = json.loads(text)
                    if frame["type"] == "reconnect":  # a close follows: this node goes away
                        least_s = frame["after_ms"] / 1000
                    elif frame.get("room") == room and take(frame, position):
                        count -= 1
                        if count == 0:
                            return
        except ConnectionClosedError as closed:
            if closed.rcvd and closed.rcvd.code in FINAL:
                sys.exit(f"closed: {closed}")
        except InvalidStatus as refusal:
            response = refusal.response
            if response.status_code != 429 and response.status_code < 500:
                sys.exit(f"refused: {(response.body or b'').decode(errors='replace')}")
            least_s = wait_s(response.headers.get("Retry-After", ""))
        except (OSError, InvalidMessage):
            pass  # no answer, or none to the end
        # Spread out: everybody else has lost the server, too.
        await asyncio.sleep(least_s + random.uniform(0, min(30, 0.5 * 2**failures)))
        failures, least_s = failures + 1, 0.0


def wait_s(retry_after: str) -> float:
    """chat-api says so many seconds; a proxy may say nothing, or a date."""
    return min(float(retry_after), 300) if retry_after.isdecimal() else 0.0


def take(frame: dict, position: pathlib.Path) -> bool:
    """Does what a frame of the room asks for, and moves the position on; whether it was a message."""
    if frame["type"] == "subscribed":
        if "rollback" in frame:
            print(f"the log has lost what came after {frame['rollback']}: drop it")
            position.write_text(frame["rollback"])
        elif not frame["recovered"]:
            print("the log does not reach back to where this stopped: what was between is missing")
            position.write_text(frame["id"])
    elif "payload" in frame and "id" in frame:
        print(frame.get("from", "somebody"), json.dumps(frame["payload"]), flush=True)
        position.write_text(frame["id"])  # after the work, so that nothing is skipped
        return True
    return False


asyncio.run(follow(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else -1))
