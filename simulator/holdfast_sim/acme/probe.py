"""How the simulated ACME server looks at a page of http-01: on loopback, whatever the name says."""

from __future__ import annotations

import http.client
from typing import Final

from holdfast.wire.acme.challenges import HTTP_01, Task

SECONDS: Final = 10
LIMIT: Final = 4096


def look(task: Task, *, port: int) -> str | None:
    """What stands at the task's path, if there is a page."""
    if task.kind != HTTP_01:
        return None
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", task.http_target, headers={"Host": task.identifier.value})
        answer = connection.getresponse()
        return answer.read(LIMIT).decode(errors="replace") if answer.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
