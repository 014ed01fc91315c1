"""Nobody is let in by accident."""

import pytest

from services.gateway.auth import check_host
from shared.settings import BadSetting, Settings


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_needs_no_tokens(host: str):
    check_host(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2"])
def test_a_network_is_refused_with_what_to_do(host: str):
    with pytest.raises(BadSetting, match=r"NATTERLOG_HOST.*NATTERLOG_OPEN_NETWORK=true"):
        check_host(Settings(host=host))
    check_host(Settings(host=host, open_network=True))
