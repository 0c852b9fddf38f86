"""Places, and when to come back."""

import pytest

from service.admission import Admission
from service.errors import QueueFullError


def test_places_are_bounded_and_given_back() -> None:
    admission = Admission(1)
    with admission.admit():
        assert admission.pending == 1
        with pytest.raises(QueueFullError), admission.admit():
            pytest.fail("there was no place")
        assert admission.pending == 1
    with pytest.raises(ValueError, match="work"), admission.admit():
        raise ValueError("work")
    assert admission.pending == 0


def test_retry_after_grows_with_queue_and_service_time() -> None:
    admission = Admission(10)
    assert admission.retry_after() == 1
    admission.pending = 10
    assert admission.retry_after() == 1
    admission.served(2.0)
    assert admission.retry_after() == 10
    for _ in range(100):
        admission.served(0.5)
    assert admission.retry_after() == 3
    admission.served(1e6)
    assert admission.retry_after() == 120
