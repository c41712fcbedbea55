"""Estimates by themselves: changes that are believed, hiccups that are not."""

from __future__ import annotations

import pytest

from headwater.device.control.estimates import DeviceEstimate, RoundTrip, Sent

MACS = {0.25: 1000, 1.0: 4000}


def answer(
    trip: RoundTrip, time_s: float, network_ms: float, *, size: float = 100, queued: bool = False, server_ms: float = 2
) -> None:
    trip.answered(Sent(size, size, queued=queued), network_ms, server_ms, time_s)


class TestRoundTrip:
    def test_follows_a_drop_at_once(self) -> None:
        trip = RoundTrip(0.99)
        for step in range(30):
            answer(trip, step / 5, 30.0)
        answer(trip, 6.0, 300.0)
        assert trip.expected_ms(100) == pytest.approx(300)
        base_ms, byte_ms = trip.line
        assert base_ms + byte_ms * 100 == pytest.approx(302, rel=0.01)
        assert base_ms < 60, "it is the rate that has changed, not what a frame takes beside its bytes"

    def test_a_smaller_change_is_believed_when_it_is_seen_twice(self) -> None:
        trip = RoundTrip(0.99)
        for step in range(200):
            answer(trip, step / 5, 30.0 + step % 3)
        answer(trip, 41.0, 60.0)
        assert trip.expected_ms(100) < 50
        answer(trip, 41.2, 60.0)
        assert trip.expected_ms(100) == pytest.approx(60)

    def test_one_slow_frame_alone_is_soon_forgotten(self) -> None:
        trip = RoundTrip(0.99)
        for step in range(100):
            answer(trip, step / 5, 30.0)
        answer(trip, 20.0, 80.0)
        answer(trip, 20.2, 30.0)
        answer(trip, 20.4, 30.0)
        assert trip.expected_ms(100) == pytest.approx(30, rel=0.1)

    def test_a_frame_behind_others_is_not_blamed_for_their_time(self) -> None:
        trip = RoundTrip(0.99)
        for step in range(30):
            answer(trip, step / 5, 30.0)
        for number in range(4):  # a second of outage, and then four frames that had piled up, 10 ms apart
            answer(trip, 7.0 + number / 100, 1000.0 - 190 * number, queued=number > 0)
        assert trip.expected_ms(100) < 60

    def test_silence_is_evidence(self) -> None:
        trip = RoundTrip(0.99)
        trip.waited(100, 500.0)
        assert not trip.known
        answer(trip, 0.0, 30.0)
        trip.waited(100, 500.0)
        assert trip.expected_ms(100) == pytest.approx(498)
        trip.waited(100, 200.0)
        assert trip.expected_ms(100) == pytest.approx(498), "that is no news"

    def test_one_size_does_not_tell_what_bytes_take_and_one_larger_frame_does_for_good(self) -> None:
        trip = RoundTrip(0.99)
        for step in range(30):
            answer(trip, step / 5, 430.0 + step % 2)
        assert not trip.told
        assert trip.line[1] * 100 > 250, "the guess: most of it is the bytes'"
        answer(trip, 6.0, 480.0, size=300)
        assert trip.told
        for step in range(300):
            answer(trip, 6.2 + step / 5, 480.0 + step % 2, size=300)
        base_ms, byte_ms = trip.line
        assert trip.told
        assert base_ms == pytest.approx(405 + 2, abs=8)
        assert byte_ms == pytest.approx(0.25, rel=0.2)

    def test_frames_that_piled_up_tell_how_fast_a_queue_is_through(self) -> None:
        trip = RoundTrip(0.99)
        answer(trip, 0.0, 80.0)
        assert trip.queue_ms(300) == pytest.approx(3 * 0.6 * 80), "the guess"
        for number in range(4):  # a second of outage, and then four frames that had piled up, 5 ms apart
            answer(trip, 2.0 + number / 200, 1000.0 - 195 * number, queued=number > 0)
        assert trip.queue_ms(300) == pytest.approx(15, rel=0.03)

    def test_a_fall_is_feared_as_often_as_it_comes_and_at_once_where_a_frame_says_so(self) -> None:
        trip = RoundTrip(0.99)
        for step in range(30):
            answer(trip, step / 5, 30.0 + step % 2 * 20, size=100 + step % 2 * 200)
        calm = trip.fear(0.0, 0, 0.0, 200.0)
        assert calm.share < 0.01
        assert calm.byte_ms == pytest.approx(1.0, rel=0.05), "a tenth of the rate, of which a byte takes 0.1 ms"
        assert calm.base_ms == pytest.approx(22, rel=0.05)
        overdue = trip.fear(300.0, 1, 250.0, 200.0)
        assert (overdue.share, overdue.byte_ms) == (0.5, pytest.approx(228 / 300, rel=0.05))
        answer(trip, 6.0, 100.0)
        slow = trip.fear(0.0, 0, 0.0, 200.0)
        assert not trip.calm
        assert (slow.share, slow.byte_ms) == (0.5, pytest.approx(0.8, rel=0.05))
        answer(trip, 6.2, 120.0)
        assert trip.calm
        assert trip.fear(0.0, 0, 0.0, 200.0).share > 1.5 * calm.share, "it has fallen once more"

    def test_what_piled_up_in_a_stall_is_not_taken_for_the_time_without_bytes(self) -> None:
        trip = RoundTrip(0.99)
        for step in range(5):
            answer(trip, 1.0 + step / 100, 1000.0 - 200 * step, queued=step > 0)
        for step in range(10):
            answer(trip, 2.0 + step / 5, 240.0 - 10 * (step % 3))
        base_ms, byte_ms = trip.line
        assert byte_ms * 100 > 0.1 * base_ms, "a frame three times as long is not as quick"

    def test_how_far_a_frame_is_overdue(self) -> None:
        trip = RoundTrip(0.99)
        answer(trip, 0.0, 48.0)
        assert trip.overdue(100, 100.0) == pytest.approx(2.0)

    def test_a_clock_that_jumps_back_does_no_harm(self) -> None:
        trip = RoundTrip(0.99)
        answer(trip, 100.0, 30.0)
        answer(trip, 0.0, 30.0, queued=True)
        assert trip.expected_ms(100) == pytest.approx(30)


class TestDevice:
    def test_an_unknown_width_is_reckoned_by_its_work(self) -> None:
        device = DeviceEstimate(MACS, 0.99)
        assert device.expected_ms(1.0) == 0.0
        device.ran(0.25, 5.0, 2.0, 0.0)
        assert device.expected_ms(0.25) == pytest.approx(7)
        assert device.expected_ms(1.0) == pytest.approx(13), "preparing the picture takes the same at any width"

    def test_a_busy_processor_shows_at_every_width_and_is_forgotten_within_a_second(self) -> None:
        device = DeviceEstimate(MACS, 0.99)
        for step in range(20):
            device.ran(0.25 if step % 2 else 1.0, 1.0, 2.0 if step % 2 else 8.0, step / 5)
        assert device.expected_ms(1.0) == pytest.approx(9, rel=0.02)
        device.ran(0.25, 3.0, 6.0, 4.0)
        assert device.expected_ms(1.0) == pytest.approx(9, rel=0.05), "one alone is a hiccup"
        device.ran(0.25, 3.0, 6.0, 4.2)
        assert device.expected_ms(1.0) == pytest.approx(27, rel=0.05)
        for step in range(6):
            device.ran(0.25, 1.0, 2.0, 4.4 + step / 5)
        assert device.expected_ms(1.0) == pytest.approx(9, rel=0.05)

    def test_long_stress_does_not_become_the_pace(self) -> None:
        device = DeviceEstimate(MACS, 0.99)
        device.ran(0.25, 0.0, 2.0, 0.0)
        device.ran(1.0, 0.0, 8.0, 0.1)
        for step in range(3000):
            device.ran(0.25, 0.0, 10.0, 1 + step / 5)
        assert device.expected_ms(1.0) == pytest.approx(40, rel=0.02)

    def test_the_whole_model_shares_the_factor(self) -> None:
        device = DeviceEstimate(MACS, 0.99)
        assert device.whole_ms(30.0) == 30.0
        for time_s, head_ms in ((0.0, 2.0), (0.2, 6.0), (0.4, 6.0)):
            device.ran(0.25, 0.0, head_ms, time_s)
        assert device.whole_ms(30.0) == pytest.approx(90, rel=0.01)
        device.ran_whole(60.0, 0.5)
        assert device.whole_ms(30.0) == pytest.approx(60, rel=0.01)

    def test_says_whether_its_factor_is_of_now(self) -> None:
        device = DeviceEstimate(MACS, 0.99)
        assert not device.fresh(0.0)
        device.ran(0.25, 0.0, 2.0, 5.0)
        assert device.fresh(5.9)
        assert not device.fresh(6.1)
