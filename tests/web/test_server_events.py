"""Server-sent events as the page reads them: however the network cuts them, with every line end of the standard."""

import json

import numpy as np
import pytest

READ = """
const { bytes, sizes } = given;
let at = 0;
const stream = new ReadableStream({
  pull(controller) {
    if (at >= bytes.length) return controller.close();
    const size = sizes[at % sizes.length];
    controller.enqueue(new Uint8Array(bytes.slice(at, (at += size))));
  },
});
return (async () => {
  const found = [];
  for await (const { name, data } of own.eventsOf(stream)) found.push([name, data]);
  return { found: new TextEncoder().encode(JSON.stringify(found)) };
})();
"""
EVENTS = [["state", '{"id": ""}'], ["map", "größer ✓"], ["message", "two\nlines"], ["result", '{"a": 1}']]
SENT = """event: state
data: {"id": ""}

: still running

event: map
id: 7
data: größer ✓

data: two
data:lines

event: result
data: {"a": 1}

event: half
data: of an eve"""


@pytest.mark.sample(every=5)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("sizes", [[1], [2, 3], [7], [1000]], ids=str)
def test_events_are_whole_however_they_arrive(call, ends, sizes):
    sent = np.frombuffer(SENT.replace("\n", ends).encode(), np.uint8)
    found = call("events", READ, bytes=sent, sizes=np.array(sizes, np.float64))
    assert json.loads(found["found"].tobytes().decode()) == EVENTS
