"""What is found seldom because finding it takes long, by a clock that the test turns."""

from __future__ import annotations

from regrain.app.observing import SHARE_MAX, Seldom


class Finding:
    """A value that takes the seconds it is told to take."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.times = 0
        self.seldom: Seldom[int] = Seldom(lambda: self.now)

    def look(self, seconds: float, circumstances: object = None) -> bool:
        """Look once; tell whether it was found just now."""

        def find() -> int:
            self.times += 1
            self.now += seconds
            return self.times

        value, is_new = self.seldom.get(circumstances, find)
        assert value == self.times
        return is_new


def test_a_first_look_that_takes_long_holds_nothing_up() -> None:
    finding = Finding()
    assert finding.look(2.0)  # the libraries were loaded meanwhile
    finding.now += 1
    assert finding.look(0.01)
    finding.now += 1
    assert finding.look(0.01)


def test_what_always_takes_long_is_found_seldom() -> None:
    finding = Finding()
    assert finding.look(2.0)
    assert finding.look(2.0)
    due_at = finding.now - 2.0 + 2.0 / SHARE_MAX
    while finding.now < due_at:
        assert not finding.look(2.0)
        finding.now += 1
    assert finding.look(2.0)


def test_one_look_that_is_held_up_counts_for_little() -> None:
    finding = Finding()
    for seconds in (0.01, 0.01, 5.0):
        finding.now += 1
        assert finding.look(seconds)
    finding.now += 1
    assert finding.look(0.01)


def test_under_other_circumstances_it_is_found_anew() -> None:
    finding = Finding()
    assert [finding.look(9.0, "idle") for _ in range(3)] == [True, True, False]
    assert finding.look(9.0, "running")
