"""One key: how much it may be used."""

import pytest

from service.errors import KeyLimitedError
from service.http.api_key import ApiKey
from tests.service.hot_loading.stores import Clock


def test_rate_and_concurrency() -> None:
    clock = Clock()
    key = ApiKey(b"", name="a", role="use", rate=2.0, clock=clock)
    for _ in range(2):
        with key.used():
            pass
    with (
        pytest.raises(KeyLimitedError, match="may ask 2 times a second; try again in 1 s"),
        key.used(),
    ):
        pass
    clock.now += 0.5
    with key.used():
        pass
    narrow = ApiKey(b"", name="a", role="use", concurrency=1, clock=clock)
    for _ in range(2):
        with (
            narrow.used(),
            pytest.raises(KeyLimitedError, match="may have 1 requests"),
            narrow.used(),
        ):
            pass
