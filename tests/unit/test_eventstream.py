"""Server-Sent Events as the HTML standard has them, §9.2.6, however the bytes are cut."""

import pytest

from dxad.client.eventstream import Parser, ServerSent
from dxad.control.eventstream import encode


def parsed(raw: bytes, cut: int = 1) -> tuple[list[ServerSent], Parser]:
    parser = Parser()
    found = [each for at in range(0, len(raw), cut) for each in parser.feed(raw[at : at + cut])]
    return found, parser


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("cut", [1, 2, 3, 1000])
def test_lines_end_in_three_ways_and_are_cut_anywhere(end, cut):
    raw = end.join(
        [b": hello", b"event: add", b"data: one", b"data:two", b"id: 7", b"", b"data: x", b"", b""]
    )
    found, parser = parsed(raw + end, cut)  # the last one may be half of two
    assert found == [ServerSent(comment="hello"), ServerSent("one\ntwo", "add"), ServerSent("x")]
    assert parser.last_id == "7", "an id holds until there is another"


def test_without_data_nothing_is_told_but_the_id_holds():
    found, parser = parsed(b"event: x\nid: 9\n\nid\n", 1000)
    assert (found, parser.last_id) == ([], "9")


def test_what_is_not_understood_is_passed_over():
    found, parser = parsed("\ufeffdata: ü\nfoo: bar\nretry: 20\nretry: x\nid: a\0b\n\n".encode())
    assert (found, parser.retry_ms, parser.last_id) == ([ServerSent("ü")], 20, None)


def test_what_the_daemon_writes_is_read():
    event = {"type": "dxad.x\nid: 4", "data": {"text": "one\ntwo\r: three"}}
    page = {"records": [{"seq": 3, "event": event}], "next": 3, "remark": "a\nb"}
    found, parser = parsed(encode(page))
    assert [each.comment for each in found] == ["a b", ""]
    assert (found[1].type, parser.last_id) == ("dxad.x id: 4", "3")
    assert '"one\\ntwo\\r: three"' in found[1].data
