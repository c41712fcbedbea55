"""Which server is tried next."""

import random
from collections import Counter

import pytest

from headwater.device.route import MOST_NAMED, Route, ranked

SERVERS = ["a:1", "b:1", "c:1"]


def take(route: Route, count: int) -> list[str]:
    """Servers that fail one after the other, with a dot for each pause."""
    taken = []
    for _ in range(count):
        taken.append(route.next())
        route.ended(worked=False)
        taken += ["."] * route.pauses
    return taken


@pytest.fixture
def route() -> Route:
    return Route(SERVERS, "cam")


def test_a_fleet_spreads_and_each_device_has_its_own_order() -> None:
    orders = Counter(tuple(ranked(SERVERS, f"cam-{number}")) for number in range(1200))
    assert len(orders) == 6
    assert all(150 < count < 260 for count in orders.values())


def test_the_order_is_the_device_s_whatever_way_it_is_written() -> None:
    shuffled = SERVERS * 2
    random.Random(0).shuffle(shuffled)
    assert ranked(shuffled, "cam") == ranked(SERVERS, "cam") == Route(shuffled, "cam").known


def test_a_server_that_goes_away_moves_only_its_own_devices() -> None:
    for number in range(100):
        whole = ranked(SERVERS, f"cam-{number}")
        assert ranked(["a:1", "c:1"], f"cam-{number}") == [server for server in whole if server != "b:1"]


def test_all_are_tried_before_a_pause(route: Route) -> None:
    order = ranked(SERVERS, "cam")
    assert take(route, 6) == [*order, ".", *order, "."]


def test_one_server_is_paused_for_each_time() -> None:
    route = Route(["a:1"], "cam")
    assert take(route, 2) == ["a:1", ".", "a:1", "."]
    route.next()
    route.ended(worked=True)
    assert route.pauses
    assert take(route, 1) == ["a:1", "."]


def test_a_server_that_worked_is_tried_once_more_then_the_others(route: Route) -> None:
    first, second, third = ranked(SERVERS, "cam")
    route.next()
    route.ended(worked=True)
    assert route.pauses, "a moment for a radio that dropped"
    assert take(route, 3) == [first, second, third, "."]


def test_a_device_stays_where_it_went(route: Route) -> None:
    first, second, third = ranked(SERVERS, "cam")
    assert route.next() == first
    route.ended(worked=False)
    for _ in range(3):  # the one that it began at may be back meanwhile
        assert route.next() == second
        route.ended(worked=True)
    assert take(route, 4) == [second, first, third, ".", second]


def test_a_server_that_greets_and_falls_over_takes_its_turn_like_one_that_is_away(route: Route) -> None:
    assert take(route, 3)[-1] == "."


def test_a_stopping_server_is_left_for_those_that_it_names_then_for_the_others(route: Route) -> None:
    first, second, third = ranked(SERVERS, "cam")
    route.next()
    route.stopping(["x:1", third])
    route.ended(worked=True)
    assert not route.pauses
    named = ranked(["x:1", third], "cam")
    assert take(route, 3) == [*named, second, "."]
    assert take(route, 4) == [*named, first, second, "."]


def test_a_device_stays_with_the_peer_that_it_was_sent_to(route: Route) -> None:
    first = route.next()
    route.stopping(["x:1"])
    route.ended(worked=True)
    assert route.next() == "x:1"
    route.ended(worked=True)
    assert take(route, 5) == ["x:1", *ranked(SERVERS, "cam"), ".", "x:1"]
    assert first in route.known


def test_a_stopping_server_that_is_the_only_one_is_waited_for() -> None:
    route = Route(["a:1"], "cam")
    route.next()
    route.stopping(["a:1", "not an address", ""])
    route.ended(worked=True)
    assert route.pauses
    assert route.next() == "a:1"


def test_a_notice_cannot_name_a_million_servers(route: Route) -> None:
    route.next()
    route.stopping(f"h{number}:1" for number in range(100_000))
    assert len(route.known) == MOST_NAMED + 3
