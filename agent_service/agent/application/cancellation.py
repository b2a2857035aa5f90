"""Cancellation that a library took no notice of."""

import asyncio


def honour_cancellation() -> None:
    """Raise CancelledError where the present task was cancelled; call it after a library's await.

    In Python 3.11 `asyncio.wait_for` returns its result, and forgets the cancellation, when both
    come at once. python-socketio's `call` and `connect` are built on it: a session that was
    cancelled so would go on for ever.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
