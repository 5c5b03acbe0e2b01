"""Images of requests are what the library reads, whatever becomes of the process that decodes them."""

import asyncio
import io
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.common.images import encoded, exif, photograph, png, webp_animation
from tests.common.loops import Loop, run_async
from tests.conftest import BANDS_BUNDLE

import ortcam
from ortcam.bundle import read_bundle
from ortcam.bundle.shipped import bundle_path
from ortcam.errors import ImageError, ImageWarning
from ortcam.images.photograph import read_photograph
from ortcam.serve.decoding.pool import Decoders
from ortcam.serve.decoding.sources import Encoded, Pixels, Preprocessed
from ortcam.serve.http.refusals import Refusal
from ortcam.serve.scheduling.calls import Abandoned, Call
from ortcam.serve.settings import RequestLimits

posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")

LIMITS = RequestLimits(pixels=1_000_000)
DARK = photograph()[..., 0].astype(np.uint16) << 4  # 12 bits of 16
PICTURES = {
    "turned JPEG": encoded(photograph(), "JPEG", exif=exif(6), quality=90),
    "grey JPEG": encoded(photograph()[..., 0], "JPEG"),
    "JPEG with a profile": encoded(photograph(), "JPEG", icc_profile=b"no profile at all"),
    "PNG of 16 bits": png(photograph() * np.uint16(257), 16, 2),
    "dark PNG of 16 bits": png(DARK, 16, 0),
    "transparent PNG": encoded(np.dstack([photograph(), photograph()[..., 0]]), "PNG"),
    "animated WebP": webp_animation((20, 16), 0, 0, photograph(16, 20)),
    "PNM of 12 bits": b"P6 131 97 4095\n" + (photograph().astype(">u2") * 16).tobytes(),
}


@pytest.fixture(scope="module")
def explainer() -> Iterator[ortcam.Explainer]:
    with ortcam.load(bundle_path()) as opened:
        yield opened


@pytest.fixture(scope="module")
def model(explainer):
    return explainer.bundle  # has a manifest


@pytest.fixture(scope="module")
def runner() -> Iterator[Loop]:
    with Loop() as found:
        yield found


@pytest.fixture(scope="module")
def decoders(runner) -> Iterator[Decoders]:
    started = Decoders(LIMITS)
    runner.run(started.start())
    yield started
    runner.run(started.close())


def using(limits, use, **options):
    """Run a coroutine function with decoders of its own."""

    async def run():
        decoders = Decoders(limits, **options)
        await decoders.start()
        try:
            return await use(decoders)
        finally:
            await decoders.close()

    return run_async(run())


async def stopped(decoders) -> int:
    """Stop the one process, so that what it is asked is never answered."""
    (pid,) = decoders.pids
    os.kill(pid, signal.SIGSTOP)
    return pid


async def begun(*readings):
    """Tasks that read; all of them wait, or work, or are over when this returns."""
    tasks = [asyncio.create_task(reading) for reading in readings]
    await asyncio.sleep(0)
    return tasks


def same(found, expected) -> None:
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    np.testing.assert_array_equal(found.model_input, expected.model_input)
    assert (found.record, found.preprocessing) == (expected.record, expected.preprocessing)
    assert found.is_preprocessed == expected.is_preprocessed


@pytest.mark.sample(every=3)
@pytest.mark.whole
@pytest.mark.filterwarnings("ignore::ortcam.ImageWarning")
@pytest.mark.parametrize("name", PICTURES)
def test_an_image_is_what_the_library_reads(name, runner, decoders, model, explainer):
    same(runner.run(decoders.read(Encoded(PICTURES[name]), model)), explainer.read(PICTURES[name]))


@pytest.mark.slow
def test_its_map_is_the_librarys_bit_for_bit(runner, decoders, model, explainer):
    content = PICTURES["turned JPEG"]
    read = runner.run(decoders.read(Encoded(content), model))
    ours, librarys = (explainer.explain(image, method="scorecam++", budget=4, top_k=2) for image in (read, content))
    np.testing.assert_array_equal(ours.maps, librarys.maps)


def test_pixels_and_model_inputs_are_what_the_library_reads(runner, decoders, model, explainer):
    same(runner.run(decoders.read(Pixels(photograph()), model)), explainer.read(photograph()))
    values = explainer.preprocess(photograph())
    same(runner.run(decoders.read(Preprocessed(values), model)), explainer.read(preprocessed=values))


def test_what_is_wrong_with_an_image_is_told(runner, decoders, model, explainer):
    said: list[str] = []
    runner.run(decoders.read(Encoded(PICTURES["dark PNG of 16 bits"]), model, tell=said.append))
    with pytest.warns(ImageWarning) as warned:
        explainer.read(PICTURES["dark PNG of 16 bits"])
    assert said == [str(warning.message) for warning in warned]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "instances[3] is empty"),
        (b"GET / HTTP/1.1", "instances[3] is not an image"),
        (PICTURES["turned JPEG"][:-200], "instances[3] is truncated"),
    ],
)
def test_what_is_no_image_is_refused_by_its_name(content, words, runner, decoders, model):
    with pytest.raises(ImageError) as refused:
        runner.run(decoders.read(Encoded(content, "instances[3]"), model))
    assert str(refused.value).startswith(words)


def test_too_many_pixels_are_refused_in_words_for_a_client(runner, decoders, model):
    large = np.zeros((1001, 1000, 3), np.uint8)
    for source in (Encoded(encoded(large, "PNG")), Pixels(large)):
        with pytest.raises(Refusal, match=r"1000 x 1001 pixels.* at most 1000000 pixels") as refused:
            runner.run(decoders.read(source, model))
        assert refused.value.status == 413
        assert "max_pixels" not in refused.value.message  # which a client cannot change


@pytest.mark.slow
@posix
def test_images_survive_a_process_that_is_killed(runner, decoders, model, explainer):
    """The one that was being decoded is decoded by the next process, and so are those that waited."""
    content = PICTURES["turned JPEG"]

    async def read() -> list[ortcam.Photograph]:
        pid = await stopped(decoders)
        tasks = await begun(*(decoders.read(Encoded(content), model) for _ in range(3)))
        os.kill(pid, signal.SIGKILL)
        found = await asyncio.gather(*tasks)
        assert pid not in decoders.pids
        return found

    for found in runner.run(read()):
        same(found, explainer.read(content))


@posix
@pytest.mark.long
def test_an_image_whose_processes_are_all_killed_may_be_tried_again(model):
    """Whoever kills them is told apart from the image; once it stops, images are read."""

    async def use(decoders) -> None:
        reading = asyncio.create_task(decoders.read(Encoded(PICTURES["turned JPEG"]), model))
        for pid in decoders.pids:
            os.kill(pid, signal.SIGSTOP)
        while not reading.done():
            for pid in decoders.pids:
                os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.001)
        with pytest.raises(Refusal, match="try again") as refused:
            await reading
        assert refused.value.status == 503
        assert refused.value.headers["Retry-After"]
        assert (await decoders.read(Encoded(PICTURES["turned JPEG"]), model)).pixels.shape == (131, 97, 3)

    using(LIMITS, use)


@posix
@pytest.mark.long
def test_an_image_that_takes_too_long_is_refused_and_the_next_is_read(model):
    ended: list[str] = []

    async def use(decoders) -> None:
        await stopped(decoders)
        with pytest.raises(Refusal, match=r"cat\.jpg takes more than 3 s to decode") as refused:
            await decoders.read(Encoded(PICTURES["turned JPEG"], "cat.jpg"), model)
        assert refused.value.status == 422
        assert ended == ["time"]
        assert (await decoders.read(Encoded(PICTURES["grey JPEG"]), model)).pixels.shape == (97, 131, 3)

    using(replace(LIMITS, decode_seconds=3), use, ended=ended.append)


@linux
@pytest.mark.long
def test_an_image_that_takes_too_much_memory_is_refused_and_the_next_is_read(model, explainer):
    large = encoded(np.zeros((3000, 3000, 3), np.uint8), "PNG")  # 27 MB

    async def use(decoders) -> None:
        for _ in range(2):
            with pytest.raises((Refusal, ImageError)) as refused:
                await decoders.read(Encoded(large), model)
            assert getattr(refused.value, "status", 422) == 422
            assert str(refused.value).startswith(f"image of {len(large)} bytes ")
        same(
            await decoders.read(Encoded(PICTURES["PNG of 16 bits"]), model), explainer.read(PICTURES["PNG of 16 bits"])
        )

    using(replace(LIMITS, pixels=9_000_000, decode_bytes=8_000_000), use)


@posix
@pytest.mark.long
def test_an_image_whose_client_has_gone_is_not_decoded(model):
    """It would be refused as no image, if anybody looked at it."""

    async def use(decoders) -> None:
        pid = await stopped(decoders)
        call = Call()
        first, gone, third = await begun(
            decoders.read(Encoded(PICTURES["grey JPEG"]), model),
            decoders.read(Encoded(b"no image"), model, check=call.check),
            decoders.read(Encoded(PICTURES["grey JPEG"]), model),
        )
        call.stop("gone")
        os.kill(pid, signal.SIGCONT)
        with pytest.raises(Abandoned):
            await gone
        for reading in (first, third):
            assert (await reading).pixels.shape == (97, 131, 3)

    using(LIMITS, use)


@posix
@pytest.mark.long
def test_images_beyond_the_queue_are_refused_and_the_others_read(model):
    async def use(decoders) -> None:
        pid = await stopped(decoders)
        tasks = await begun(*(decoders.read(Encoded(PICTURES["grey JPEG"]), model) for _ in range(2)))
        with pytest.raises(Refusal, match="2 images wait") as refused:
            await decoders.read(Encoded(PICTURES["grey JPEG"]), model)
        assert refused.value.status == 429
        assert int(refused.value.headers["Retry-After"]) >= 1
        tasks += await begun(decoders.read(Encoded(PICTURES["grey JPEG"]), model, always=True))
        os.kill(pid, signal.SIGCONT)
        await asyncio.gather(*tasks)
        assert decoders.waiting == 0

    using(replace(LIMITS, quick_queue=2), use)


@posix
@pytest.mark.long
def test_a_request_that_is_given_up_leaves_the_process_to_the_next(model):
    async def use(decoders) -> None:
        pid = await stopped(decoders)
        first, second = await begun(*(decoders.read(Encoded(PICTURES["grey JPEG"]), model) for _ in range(2)))
        first.cancel()
        second.cancel()
        assert [type(error) for error in await asyncio.gather(first, second, return_exceptions=True)] == [
            asyncio.CancelledError
        ] * 2
        os.kill(pid, signal.SIGCONT)
        assert (await decoders.read(Encoded(PICTURES["grey JPEG"]), model)).pixels.shape == (97, 131, 3)
        assert decoders.pids == (pid,)

    using(LIMITS, use)


@posix
@pytest.mark.long
def test_who_waits_when_the_decoders_close_is_told(model):
    async def use(decoders) -> None:
        (pid,) = decoders.pids
        await stopped(decoders)
        tasks = await begun(*(decoders.read(Encoded(PICTURES["grey JPEG"]), model) for _ in range(3)))
        await decoders.close()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [outcome.status for outcome in outcomes if isinstance(outcome, Refusal)] == [503] * 3
        assert decoders.pids == ()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    using(LIMITS, use)


@linux
@pytest.mark.long
def test_a_process_that_decodes_knows_no_secret_of_the_server(model, monkeypatch):
    monkeypatch.setenv("ORTCAM_TOKEN", "a secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another secret")

    async def use(decoders) -> None:
        (pid,) = decoders.pids
        assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()

    using(LIMITS, use)


def test_samples_come_as_the_library_reads_them_and_too_many_are_refused_in_words_for_clients(decoders, runner):
    bundle = read_bundle(BANDS_BUNDLE)
    field = np.random.default_rng(0).integers(0, 9000, (40, 60, 4), np.uint16)
    for array in (field, field.astype(np.int16), field.astype(np.float32), (field % 256).astype(np.uint8)):
        expected = read_photograph(npy(array), bundle.manifest.preprocessing, max_pixels=LIMITS.pixels)
        found = runner.run(decoders.read(Encoded(npy(array)), bundle))
        assert found.samples.dtype == array.dtype
        for name in ("samples", "pixels", "model_input"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    with pytest.raises(Refusal, match="give a smaller image") as caught:
        runner.run(decoders.read(Encoded(npy(np.zeros((1001, 1000, 4), np.uint8))), bundle))
    assert caught.value.status == 413
    assert "max" not in str(caught.value)


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()
