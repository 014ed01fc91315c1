"""Whether a failed call is worth another one, and when."""

import random
import re

from services.llm_worker.providers.base import ProviderError

LONGEST_WAIT = 60.0
"""Seconds for which a reply waits because its provider wishes it; beyond, it fails at once."""

_LASTING = re.compile(
    r"insufficient[_ ](?:quota|balance|funds|credits?)|credit balance|out of credits"
    r"|payment.required|billing[_ ](?:error|hard|not[_ ]active)"  # rate limits name a billing page
    r"|(?:invalid|incorrect|wrong|missing|expired|revoked|no)[_ ](?:x-)?api[-_ ]?key"
    r"|api[-_ ]?key (?:is |was )?(?:not valid|invalid|incorrect|missing|expired|revoked|disabled)"
    r"|authentication.(?:error|failed)|account.{0,30}(?:deactivated|suspended|disabled|banned)",
    re.IGNORECASE,
)
"""Words that no status takes back: the next call would meet the same key, or the same bill."""


_OF_THE_KEY = {401, 402, 403}
"""Statuses of those, whatever else the answer says."""


def lasting(fault: ProviderError) -> bool:
    """Whether only somebody who changes something can make the call succeed."""
    if not fault.transient or fault.status in _OF_THE_KEY:
        return True
    return _LASTING.search(f"{fault.message} {fault.text}") is not None


def worth_another(fault: ProviderError, failures: int, most_failures: int) -> bool:
    """Whether natterlog itself tries again, after so many failed calls of the run."""
    most = most_failures if fault.most_tries is None else min(fault.most_tries, most_failures)
    if not fault.transient or fault.leave_alone or failures >= most:
        return False
    return (fault.retry_after or 0.0) <= LONGEST_WAIT


def backoff(failures: int, wished: float | None) -> float:
    """Seconds before the next try: what the provider wished, or 0.5, 1, 2 …"""
    if wished is not None:
        return min(wished, LONGEST_WAIT)
    return min(0.5 * 2 ** (failures - 1), 8.0) * random.uniform(0.75, 1.25)  # noqa: S311  (no secret)
