"""The camera's modules without a browser: what they ask a device for, what they say without one, and their loop."""

import json

import numpy as np
import pytest

from ortcam.images.preprocessing import Preprocessing

# A device that gives a stream of one track, and a video element that shows it.
DEVICE = """
  const track = Object.assign(new EventTarget(), { stopped: 0, stop() { this.stopped++; }, getSettings: () => ({}) });
  const stream = { getTracks: () => [track], getVideoTracks: () => [track] };
  const asked = [];
  const devices = { getUserMedia: async (wanted) => { asked.push(wanted); return stream; } };
  const video = { srcObject: null, play: async () => {} };
"""
SAID = "return { said: new TextEncoder().encode(said) };"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("NotAllowedError", "The camera is not allowed for this page: allow it in the browser's settings"),
        ("NotFoundError", "No camera was found: connect one, or choose an image."),
        ("NotReadableError", "The camera is busy: close the other program that uses it, and try again."),
        ("OverconstrainedError", "That camera is no longer there: choose another one."),
        ("NewError", "The camera did not start: what it says."),
    ],
)
def test_why_there_is_no_camera_is_one_sentence(call, name, sentence):
    error = f'new DOMException("what it says", "{name}")'
    body = f"""
      const devices = {{ getUserMedia: async () => {{ throw {error}; }} }};
      const video = {{ srcObject: null }};
      const said = await own.Camera.open(devices, video, {{ id: null, height: 224 }}).catch((error) => error.message);
      {SAID}
    """
    assert bytes(call("camera", body)["said"]).decode().startswith(sentence)


@pytest.mark.slow
def test_without_a_secure_address_there_are_no_devices(call):
    body = f"""
      const said = await own.Camera.open(undefined, {{}}, {{ id: null, height: 9 }}).catch((error) => error.message);
      {SAID}
    """
    said = bytes(call("camera", body)["said"]).decode()
    assert said == "Browsers give a camera to secure pages only: open this page by https or on 127.0.0.1."


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (
            {"id": None, "height": 224},
            {"width": {"ideal": 640}, "height": {"ideal": 480}, "facingMode": {"ideal": "environment"}},
        ),
        (
            {"id": "front", "height": 518},
            {"width": {"ideal": 691}, "height": {"ideal": 518}, "deviceId": {"exact": "front"}},
        ),
    ],
    ids=["back", "chosen"],
)
def test_the_back_camera_is_asked_for_until_another_is_chosen_and_no_sound(call, wanted, expected):
    body = f"""
      {DEVICE}
      await own.Camera.open(devices, video, {json.dumps(wanted)});
      const said = JSON.stringify(asked);
      {SAID}
    """
    assert json.loads(bytes(call("camera", body)["said"])) == [{"audio": False, "video": expected}]


@pytest.mark.slow
def test_a_camera_that_cannot_be_shown_is_switched_off(call):
    body = f"""
      {DEVICE}
      video.play = async () => {{ throw new DOMException("no", "AbortError"); }};
      const said = await own.Camera.open(devices, video, {{ id: null, height: 9 }}).catch((error) => error.message);
      return {{ stopped: [track.stopped], empty: [Number(video.srcObject === null)] }};
    """
    assert {name: list(value) for name, value in call("camera", body).items()} == {"stopped": [1], "empty": [1]}


def test_a_closed_camera_is_off_and_one_that_is_taken_away_says_so_once(call):
    body = f"""
      {DEVICE}
      const camera = await own.Camera.open(devices, video, {{ id: null, height: 9 }});
      let lost = 0;
      camera.whenLost(() => lost++);
      track.dispatchEvent(new Event("ended"));
      track.dispatchEvent(new Event("ended"));
      camera.close();
      return {{ lost: [lost], stopped: [track.stopped], empty: [Number(video.srcObject === null)] }};
    """
    found = {name: list(value) for name, value in call("camera", body).items()}
    assert found == {"lost": [1], "stopped": [1], "empty": [1]}


# A clock that jumps to the end of whatever is waited for; `explain` takes as long as `took` says.
LOOP = """
  let now = 0;
  const clock = { now: () => now, wait: async (time) => { now += time; } };
  const [begun, shown, rates] = [[], [], []];
  let [frames, busy, most] = [0, 0, 0];
  const until = (count, steps) => new Promise((resolve) => {
    const loop = new own.Loop({
      grab: async () => { begun.push(now); return frames++; },
      explain: async (frame) => {
        most = Math.max(most, ++busy);
        await null;
        now += took(frame);
        busy--;
        return frame;
      },
      show: (frame, rate) => {
        shown.push(frame);
        rates.push(rate ?? NaN);
        if (shown.length === count) resolve(loop.stop());
      },
      fail: resolve,
      ...steps,
    }, clock);
  });
"""


def test_quick_maps_come_at_a_steady_rate_that_leaves_the_machine_some_rest(call):
    body = f"{LOOP} const took = (frame) => 5 + (frame % 3) * 20; await until(40, {{}}); return {{ begun, rates }};"
    found = call("loop", body)
    np.testing.assert_allclose(np.diff(found["begun"]), 1000 / 15, rtol=1e-9)
    assert np.isnan(found["rates"][0])
    np.testing.assert_allclose(found["rates"][20:], 15, rtol=0.04)  # maps come 40 ms sooner or later


def test_frames_that_a_slow_model_has_no_time_for_are_skipped_and_never_queued(call):
    body = f"{LOOP} const took = () => 4000; await until(5, {{}}); return {{ begun, rates, most: [most], shown }};"
    found = call("loop", body)
    assert list(found["begun"]) == [0, 4000, 8000, 12000, 16000]
    np.testing.assert_allclose(found["rates"][1:], 0.25)
    assert list(found["most"]) == [1]
    assert list(found["shown"]) == [0, 1, 2, 3, 4]


def test_a_camera_without_a_frame_yet_is_asked_again(call):
    body = f"""
      {LOOP}
      const took = () => 5;
      await until(2, {{ grab: async () => (frames++ < 3 ? null : frames) }});
      return {{ shown }};
    """
    assert list(call("loop", body)["shown"]) == [4, 5]


def test_after_a_stop_nothing_is_shown_and_the_frame_under_way_is_waited_for(call):
    body = f"""
      {LOOP}
      let [release, finished] = [null, 0];
      const loop = new own.Loop({{
        grab: async () => 1,
        explain: () => new Promise((resolve) => (release = () => {{ finished++; resolve(1); }})),
        show: () => shown.push(1),
        fail: () => shown.push(2),
      }}, clock);
      while (release === null) await new Promise(setImmediate);
      const stopped = loop.stop().then(() => finished);
      release();
      return {{ shown, finished: [await stopped] }};
    """
    found = call("loop", body)
    assert list(found["shown"]) == []
    assert list(found["finished"]) == [1]


@pytest.mark.slow
@pytest.mark.parametrize("step", ["grab", "explain", "show"])
def test_what_fails_ends_the_loop_and_is_said_once(call, step):
    body = f"""
      {LOOP}
      const took = () => 5;
      let failures = 0;
      const steps = {{ {step}: () => {{ throw new Error("broken"); }} }};
      const said = await until(99, steps);
      await new Promise(setImmediate);
      return {{ right: [Number(said.message === "broken")], shown }};
    """
    found = call("loop", body)
    assert list(found["right"]) == [1]
    assert list(found["shown"]) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "fits"),
    [
        ({}, True),
        ({"channel_order": "bgr"}, True),
        ({"channel_order": "grey", "mean": (0.5,), "std": (0.2,)}, True),
        ({"channel_order": "bands"}, True),
        ({"channel_order": "bands", "mean": (0.5,) * 4, "std": (0.2,) * 4}, False),
    ],
    ids=["rgb", "bgr", "grey", "three bands", "four bands"],
)
def test_a_frame_is_preprocessed_as_python_does_where_the_model_takes_pictures(call, options, fits):
    base = {"height": 24, "width": 20, "resize": 28, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    preprocessing = Preprocessing(**base | options)
    size = (30, 47)
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    body = f"""
      const preprocessing = {json.dumps(preprocessing.__dict__)};
      const pixels = {{ data: given.rgba, height: {size[0]}, width: {size[1]} }};
      const fits = own.fitsCamera(preprocessing);
      return {{ fits: [Number(fits)], input: fits ? own.pictureOf(preprocessing, pixels, "frame").input : [] }};
    """
    found = call("picture", body, rgba=np.dstack([frame, np.full(size, 255, np.uint8)]))
    assert list(found["fits"]) == [fits]
    if fits:
        np.testing.assert_allclose(found["input"], preprocessing(frame).ravel(), atol=1e-6)
