import numpy as np
import pytest

from hw_sim.waveform import Cycle, Vibration


def turns(cycle, count, read=lambda cycle: cycle.value):
    """The values of so many whole turns, in steps of 10 ms."""
    values, before = [], cycle._done
    while count >= 0:
        cycle.step(0.01)
        if cycle._done < before:
            count -= 1
            values.append([])
        before = cycle._done
        if values:
            values[-1].append(read(cycle))
    return values[:-1]


def test_a_cycle_is_never_twice_alike_but_bounded():
    cycle = Cycle("seed", longest_s=5.0)
    found = turns(cycle, 40)
    assert len({len(turn) for turn in found}) > 10
    assert all(4.1 < len(turn) / 100 <= 5.01 for turn in found)
    assert all(0.8 < max(turn) <= 1.15 for turn in found)


def test_each_turn_of_a_cycle_sums_to_zero_so_that_a_tank_does_not_wander():
    for read in (lambda cycle: cycle.value, lambda cycle: cycle.stair(10)):
        for turn in turns(Cycle("seed", longest_s=5.0), 40, read):
            assert abs(np.mean(turn)) < 0.01


@pytest.mark.parametrize("wear", [0.0, 0.2, 0.6])
def test_wear_says_by_how_much_the_root_mean_square_rises(wear):
    healthy, worn = Vibration("seed"), Vibration("seed")
    rises = {}
    pairs = [
        [each.step(0.01, speed_rpm=1450.0, load=1.0, wear=w) for each, w in ((healthy, 0.0), (worn, wear))]
        for _ in range(20_000)
    ]
    for axis in "xyz":
        before, after = (np.std([pair[which][axis] for pair in pairs]) for which in (0, 1))
        rises[axis] = after / before - 1
    assert rises["x"] == pytest.approx(wear, abs=0.03)
    assert rises["y"] == pytest.approx(wear, abs=0.03)
    assert rises["z"] < 0.2 * wear + 0.001
