"""The one retry policy, and the only place that knows tenacity.

Reads are repeated here. Writes never are: whether a failed write was done is not known, so the loop looks again and
plans anew; it asks this module only how long to wait before it does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from vcluster.errors import TemporaryError

__all__ = ["MAX_ATTEMPTS", "delay", "read"]

T = TypeVar("T")

MAX_ATTEMPTS = 30
"""How often the same call is tried; with the waits below about 25 minutes in all, if no deadline comes before."""

_WAIT = wait_exponential_jitter(initial=1, max=60, jitter=1)


def delay(attempt: int, error: BaseException | None = None) -> float:
    """Seconds to wait after the ``attempt``-th failure (1-based): exponential with jitter, or what the server asked.

    The shape is tenacity's ``wait_exponential_jitter``: 1, 2, 4 … 60 s plus up to 1 s.
    """
    state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
    state.attempt_number = attempt
    asked = error.delay if isinstance(error, TemporaryError) else 0.0
    return max(asked, float(_WAIT(state)))


def read(call: Callable[[], T], *, sleep: Callable[[float], None], notify: Callable[[BaseException, float], None]) -> T:
    """Run a call that changes nothing, again while it fails with :class:`TemporaryError`.

    Args:
        call: the read.
        sleep: waits that many seconds; raises to end the run (deadline, cancellation).
        notify: told of each failure and the wait that follows.

    Raises:
        TemporaryError: it failed :data:`MAX_ATTEMPTS` times.
    """

    def wait(state: RetryCallState) -> float:
        return delay(state.attempt_number, state.outcome.exception() if state.outcome else None)

    def before_sleep(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if error is not None and state.next_action is not None:
            notify(error, state.next_action.sleep)

    retrying = Retrying(
        retry=retry_if_exception_type(TemporaryError),
        wait=wait,
        stop=stop_after_attempt(MAX_ATTEMPTS),
        sleep=sleep,
        before_sleep=before_sleep,
        reraise=True,
    )
    return retrying(call)
