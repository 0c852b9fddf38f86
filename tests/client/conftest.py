from collections.abc import Iterator

import pytest

from tests.service.fakes import live


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A service with an engine that is none, on a socket."""
    with live() as (address, _):
        yield address
