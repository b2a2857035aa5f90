from ogent.client.backoff import Backoff


class ManualTime:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def longest(_: float, high: float) -> float:
    return high


def test_delays_double_up_to_the_cap():
    backoff = Backoff(100, first_s=1, cap_s=5, monotonic=ManualTime(), uniform=longest)
    assert [backoff.next_delay_s() for _ in range(4)] == [1.05, 2.05, 4.05, 5.05]


def test_it_gives_up_when_its_time_has_passed():
    time = ManualTime()
    backoff = Backoff(10, monotonic=time, uniform=longest)
    assert backoff.next_delay_s() is not None
    time.now = 10.0
    assert backoff.next_delay_s() is None


def test_success_starts_it_over():
    time = ManualTime()
    backoff = Backoff(10, first_s=1, monotonic=time, uniform=longest)
    backoff.next_delay_s()
    time.now = 9.0
    backoff.reset()
    time.now = 18.0
    assert backoff.next_delay_s() == 1.05
