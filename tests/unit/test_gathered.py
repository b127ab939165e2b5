"""Messages that came together are staged together: the same as one after the other."""

import asyncio

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dxad import plugin
from dxad.decode import decoder
from dxad.errors import DecodeError, NotConnected
from dxad.sources import Inbox, Intake
from dxad.sources.mqtt import Config

VALUES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([None, True, "12.5", [], {}]),
)
PAYLOADS = st.one_of(
    st.dictionaries(st.sampled_from(["a", "b", "c", "t"]), VALUES).map(orjson.dumps),
    st.just({"a": 1.5, "b": 2, "t": 1_700_000_000}).map(orjson.dumps),
    st.sampled_from([b"", b"[]", b"3", b'"a"', b'{"a": 1', b"\xff", b'{"a": NaN}', b'{"a": {"b": 7}}']),
)


def config(**settings):
    document = {
        "type": "mqtt",
        "url": "mqtt://127.0.0.1",
        "topic": "t",
        "period": "1s",
        "channels": {"a": {}},
    }
    return Config.model_validate({**document, **settings})


def intakes(inbox, *, timed):
    """Of two kinds of messages: one with `a` and `b`, one with what is below `a`."""
    section = plugin.load("decode", "json").config.model_validate({"kind": "json"})
    time = ["t"] if timed else []
    return [
        Intake(inbox, decoder(section, [*paths, *time]), columns, timed=timed, all_columns=False)
        for paths, columns in ((["a", "b"], (0, 2)), (["a.b"], (1,)), (["c"], (3,)))
    ]


async def seen(inbox):
    """What a reader gets of it: the samples, and what was rejected."""
    inbox.lose("that was all")
    blocks, rejected = [], 0
    while True:
        try:
            blocks.append((await inbox.block()).samples)
        except DecodeError as error:
            rejected += error.rejected
        except NotConnected:
            return np.concatenate([*blocks, np.empty(0, blocks[0].dtype)]) if blocks else None, rejected


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("queue", [20_000, 100])
@pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest", "thin"])
def test_gathered_they_are_what_they_are_alone(timed, queue, overflow):
    @given(st.lists(st.tuples(st.integers(0, 2), PAYLOADS), max_size=80))
    @example([(0, b'{"a": 0.0, "b": 0.0, "t": 99999999999999992}')])  # an integer that is no float
    def check(messages):
        section = config(queue=queue, overflow=overflow)
        alone, together = Inbox(section), Inbox(section)
        alone.open()
        together.open()
        one_by_one, at_once = intakes(alone, timed=timed), intakes(together, timed=timed)
        for kind, payload in messages:
            one_by_one[kind].take(5, payload)
            if not at_once[kind].gather(5, payload):
                together.commit()
                at_once[kind].take(5, payload)
        together.commit()
        (mine, bad), (wanted, as_bad) = asyncio.run(seen(together)), asyncio.run(seen(alone))
        assert bad == as_bad
        assert together.overflowed == alone.overflowed
        assert (mine is None) == (wanted is None)
        if mine is not None:
            for name in mine.dtype.names:
                np.testing.assert_array_equal(mine[name], wanted[name])

    check()


def test_a_source_that_blocks_gathers_nothing():
    inbox = Inbox(config(overflow="block"), hold=lambda _held: None)
    assert not intakes(inbox, timed=False)[0].gather(5, b'{"a": 1, "b": 2}')
