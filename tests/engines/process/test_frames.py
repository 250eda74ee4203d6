"""Messages arrive as they were sent."""

from __future__ import annotations

import socket
import threading

import pytest

from caslie_ray.engines import Request
from caslie_ray.engines.process._frames import encode, receive, send
from caslie_ray.engines.process._messages import pack, unpack
from caslie_ray.prompts import Prompt


def test_requests_arrive_as_they_were_sent_and_an_image_that_repeats_once() -> None:
    image = bytes(range(256)) * 4000
    asked = [
        Request("a", Prompt("one", ((0, 1),), ((1, 2),)), image, "adapter"),
        Request("b", Prompt("two")),
        Request("c", Prompt("three"), b""),
        Request("d", Prompt("four"), bytes(bytearray(image))),
        *(Request(str(number), Prompt("many"), b"%d" % number) for number in range(2000)),
    ]
    parts = encode(pack(asked))
    assert sum(map(len, parts)) < 2 * len(image)
    ours, theirs = socket.socketpair()
    sender = threading.Thread(target=send, args=(ours, parts))
    sender.start()
    got = unpack(receive(theirs))
    sender.join()
    assert got == asked
    assert type(got[0].image) is bytes
    assert got[0].image is got[3].image
    ours.close()
    with pytest.raises(EOFError):
        receive(theirs)
    theirs.close()


def test_no_requests() -> None:
    assert unpack(pack([])) == []
