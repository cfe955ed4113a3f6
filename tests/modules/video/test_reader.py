"""Reader: exact times, edit lists, rotation, formats, and one clear sentence for every bad file."""

import logging
import shutil
from fractions import Fraction

import av
import numpy as np
import pytest

from modules.commons.errors import VideoReadError
from modules.commons.workspace import DEMO_DIR, ROOT
from modules.video.colour import rgb_from_planes
from modules.video.reader import VideoReader
from tests.support.synthetic_video import (
    ClipSpec,
    depth_of,
    frame_planes,
    make_clip,
    read_video,
    video_frame,
    write_tone,
)

CLIPS = ROOT.parent / "shared" / "clips"


def demo(name):
    path = DEMO_DIR / name
    if not path.exists():
        pytest.skip(f"{name} is not set up (scripts/setup.sh fetches it)")
    return path


def real_clip(name):
    path = CLIPS / name
    if not path.exists():
        pytest.skip(f"real clip {name} is not on this machine")
    return path


def assert_same_planes(frames, images):
    assert len(frames) == len(images)
    for frame, image in zip(frames, images, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(frame.planes, image, strict=True))


@pytest.mark.parametrize(
    ("pixel_format", "width", "height"),
    [
        ("yuv420p", 64, 48), ("yuv420p", 175, 143), ("yuv422p", 64, 47), ("yuv422p", 33, 20), ("yuv444p", 33, 17),
        ("yuv420p10le", 64, 48), ("yuv422p10le", 64, 47), ("yuv444p10le", 33, 17), ("yuv420p12le", 33, 17),
    ],
)  # fmt: skip
def test_planes_are_as_coded_and_sizes_odd_or_even(tmp_path, pixel_format, width, height):
    clip = make_clip(tmp_path / "clip.mp4", ClipSpec(width=width, height=height, pixel_format=pixel_format))
    with VideoReader(clip.path) as reader:
        frames = list(reader.frames())
    assert_same_planes(frames, clip.planes)
    assert (reader.info.width, reader.info.height) == (width, height) == frames[0].size_hw[::-1]
    assert [f.index for f in frames] == list(range(12))


def test_variable_rate_times_are_exact_and_reading_again_gives_the_same(tmp_path):
    pts = (0, 1001, 1002, 3003, 8008, 8009, 30000)
    clip = make_clip(tmp_path / "vfr.mp4", ClipSpec(pts=pts, time_base=Fraction(1, 30000)))
    reader = VideoReader(clip.path)
    for _ in range(2):
        frames = list(reader.frames())
        assert [f.time_s for f in frames] == [Fraction(p, 30000) for p in pts]
        assert_same_planes(frames, clip.planes)
    assert frames[0].pts == 0 and reader.info.time_base == Fraction(1, 30000)


def test_frames_outside_the_edit_list_are_not_delivered(tmp_path):
    clip = make_clip(tmp_path / "cut.mp4", ClipSpec(n_frames=20, hidden=5))
    with av.open(str(clip.path)) as container:
        assert container.streams.video[0].frames == 20
    with VideoReader(clip.path) as reader:
        frames = list(reader.frames())
    assert_same_planes(frames, clip.planes)
    assert len(frames) == 15 and frames[0].time_s == 0


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_applied_to_the_planes_exactly(tmp_path, pixel_format, rotation):
    spec = ClipSpec(pixel_format=pixel_format, rotation_deg=rotation, n_frames=3)
    clip = make_clip(tmp_path / "turned.mp4", spec)
    with VideoReader(clip.path) as reader:
        frames = list(reader.frames())
    turned = [tuple(np.rot90(plane, rotation // 90) for plane in image) for image in clip.planes]
    assert_same_planes(frames, turned)
    assert reader.info.rotation_deg == rotation
    assert (reader.info.height, reader.info.width) == frames[0].size_hw
    if pixel_format.startswith("yuv420p"):
        assert frames[0].layout.siting == {90: "bottom", 180: "right", 270: "top"}[rotation]


@pytest.mark.parametrize(
    ("pixel_format", "width", "rotation"),
    [("yuv422p", 64, 90), ("yuv420p", 63, 180), ("yuv420p", 63, 90), ("yuv422p10le", 64, 270)],
)
def test_a_chroma_grid_that_does_not_turn_becomes_444_and_says_so(tmp_path, caplog, pixel_format, width, rotation):
    spec = ClipSpec(width=width, pixel_format=pixel_format, rotation_deg=rotation, n_frames=3)
    clip = make_clip(tmp_path / "turned.mp4", spec)
    with caplog.at_level(logging.WARNING):
        frames = list(VideoReader(clip.path).frames())
    full = pixel_format.replace("420", "444").replace("422", "444")
    assert frames[0].layout.pixel_format == full
    assert np.array_equal(frames[0].planes[0], np.rot90(clip.planes[0][0], rotation // 90))
    assert [r.message for r in caplog.records if f"is delivered as {full}:" in r.message]


def test_colour_tags_range_and_pixel_shape_are_kept(tmp_path):
    spec = ClipSpec(color_tags=(9, 16, 9, 2), sample_aspect_ratio=Fraction(128, 117), tone_hz=300.0)
    info = VideoReader(make_clip(tmp_path / "tags.mp4", spec).path).info
    assert info.color_tags == (9, 16, 9, 2)
    assert info.layout.full_range and info.layout.matrix == "bt2020"
    assert info.sample_aspect_ratio == Fraction(128, 117)
    assert info.has_audio and info.duration_s == pytest.approx(12 / 25, abs=1e-3)
    assert info.frame_rate == 25


def encode_format(path, codec, pixel_format, image):
    """Two frames of a 48x32 picture (rgb24 array) in any codec and format."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, pixel_format
        for i in range(2):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
                format=pixel_format, dst_colorspace="ITU601", dst_color_range="MPEG"
            )
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("codec", "pixel_format", "delivered"),
    [
        ("ffv1", "yuv420p9le", "yuv420p10le"),
        ("ffv1", "yuv422p14le", "yuv422p12le"),
        ("ffv1", "yuv444p16le", "yuv444p12le"),
        ("ffv1", "yuv411p", "yuv422p"),
        ("ffv1", "yuv440p", "yuv444p"),
        ("ffv1", "yuv440p10le", "yuv444p10le"),
        ("ffv1", "gray", "yuv420p"),
        ("ffv1", "gray10le", "yuv420p10le"),
        ("ffv1", "bgr0", "yuv444p"),
        ("ffv1", "gbrp10le", "yuv444p10le"),
        ("ffv1", "rgb48le", "yuv444p12le"),
        ("libx264rgb", "rgb24", "yuv444p"),
        ("qtrle", "rgb24", "yuv444p"),
        ("mjpeg", "yuvj422p", "yuv422p"),
    ],
)
def test_other_formats_become_the_nearest_kept_one(tmp_path, caplog, codec, pixel_format, delivered):
    x, y = np.meshgrid(np.linspace(0, 1, 48), np.linspace(0, 1, 32))
    image = np.rint(np.dstack([60 + 120 * x, 180 - 90 * y, 70 + 60 * x * y])).astype(np.uint8)
    if pixel_format.startswith("gray"):
        image = np.repeat(image[..., :1], 3, axis=2)
    path = tmp_path / "clip.mov" if codec in {"qtrle", "mjpeg"} else tmp_path / "clip.mkv"
    encode_format(path, codec, pixel_format, image)
    with caplog.at_level(logging.WARNING), VideoReader(path) as reader:
        frames = list(reader.frames())
    assert reader.info.layout.pixel_format == delivered
    depth = depth_of(delivered)
    assert len(frames) == 2 and frames[0].planes[0].dtype == (np.uint8 if depth == 8 else np.uint16)
    assert frames[0].layout.bit_depth == depth
    assert np.abs(rgb_from_planes(frames[0]).astype(int) - image).mean() < 3
    reasons = [r.message for r in caplog.records if "is converted to" in r.message]
    assert len(reasons) == (0 if pixel_format.startswith("yuvj") else 1)
    if pixel_format.startswith("yuvj"):
        assert reader.info.layout.full_range and reader.info.layout.siting == "center"


@pytest.fixture(scope="module")
def sound_clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("sound") / "sound.mp4", ClipSpec(n_frames=60, width=160, height=120)).path


def damaged(name, sound_clip, folder):
    path = folder / f"{name}.mp4"
    data = sound_clip.read_bytes()
    if name == "missing":
        return path
    if name == "folder":
        path.mkdir()
    elif name == "empty":
        path.touch()
    elif name == "text":
        path.write_text("this is not a video\n" * 40)
    elif name == "audio only":
        write_tone(path.with_suffix(".wav"), 0.5)
        return path.with_suffix(".wav")
    elif name == "data cut":
        path.write_bytes(data[: len(data) * 6 // 10])
    elif name == "index missing":
        at = data.index(b"moov") - 4
        size = int.from_bytes(data[at : at + 4], "big")
        path.write_bytes(data[:at] + data[at + size :][: len(data) // 2])
    elif name == "matroska cut":
        path = path.with_suffix(".mkv")
        remux(sound_clip, path)
        path.write_bytes(path.read_bytes()[:-5000])
    return path


def remux(source, target):
    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                made.mux(packet)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", "does not exist"),
        ("folder", "is a folder"),
        ("empty", "is empty"),
        ("text", "not a video"),
        ("audio only", "no video stream"),
        ("data cut", "cut off"),
        ("index missing", "cut off"),
        ("matroska cut", "cut off"),
    ],
)
def test_a_file_that_cannot_be_used_fails_at_once_in_one_sentence(tmp_path, sound_clip, name, words):
    path = damaged(name, sound_clip, tmp_path)
    with pytest.raises(VideoReadError, match=words) as caught:
        VideoReader(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_video_without_frames_is_an_error(tmp_path):
    path = tmp_path / "none.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    with pytest.raises(VideoReadError, match=r"none\.mp4"):
        VideoReader(path)


def test_damage_in_the_middle_raises_there_after_the_sound_frames(tmp_path, sound_clip):
    data = bytearray(sound_clip.read_bytes())
    middle = len(data) // 2
    data[middle:] = np.random.default_rng(0).bytes(len(data) - middle)
    path = tmp_path / "noise.mp4"
    path.write_bytes(data)
    reader, count = VideoReader(path), 0
    with pytest.raises(VideoReadError, match="cannot be decoded after frame"):
        for _ in reader.frames():
            count += 1
    assert 0 < count < 60


def test_a_change_of_frame_size_is_named(tmp_path):
    path = tmp_path / "change.ts"
    raw = []
    for width in (64, 96):
        clip = make_clip(
            tmp_path / f"{width}.ts", ClipSpec(width=width, codec="mpeg2video", n_frames=4, time_base=Fraction(1, 25))
        )
        raw.append(clip.path.read_bytes())
    path.write_bytes(b"".join(raw))
    with pytest.raises(VideoReadError, match="changes its frame size to 96x48"):
        list(VideoReader(path).frames())


def test_times_that_are_missing_are_made_from_the_rate(tmp_path):
    path = tmp_path / "raw.h264"
    clip = make_clip(tmp_path / "clip.mkv", ClipSpec(n_frames=8))
    with av.open(str(path), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i, image in enumerate(clip.planes):
            container.mux(stream.encode(video_frame(image, "yuv420p", i, Fraction(1, 25))))
        container.mux(stream.encode(None))
    frames = list(VideoReader(path).frames())
    assert_same_planes(frames, clip.planes)
    steps = {b.time_s - a.time_s for a, b in zip(frames, frames[1:], strict=False)}
    assert len(steps) == 1 and steps.pop() > 0


def test_closing_the_reader_ends_its_iterators_and_frees_the_file(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4")
    with VideoReader(clip.path) as reader:
        frames = reader.frames()
        next(frames)
    assert list(frames) == []
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(
    ("name", "count", "size"),
    [
        ("WolfgangLanger_Pexels.mp4", 472, (640, 360)),
        ("carphone_pristine.mp4", 120, (176, 144)),
        ("no_face.mp4", 95, (960, 540)),
        ("obama_speech.mp4", 105, (320, 240)),
        ("single_face.mp4", 72, (640, 360)),
    ],
)
def test_demo_files_give_the_frames_that_are_shown(name, count, size):
    with VideoReader(demo(name)) as reader:
        last, seen = None, 0
        for frame in reader.frames():
            assert last is None or frame.time_s > last
            last, seen = frame.time_s, seen + 1
    assert (seen, (reader.info.width, reader.info.height)) == (count, size)


@pytest.mark.parametrize(
    ("name", "count", "size"),
    [
        ("vfr_700x700.mp4", 135, (700, 700)),
        ("lectern_profile_editlist_640x360_30fps.mp4", 687, (640, 360)),
    ],
)
def test_real_clips_give_the_frames_that_are_shown_at_their_times(name, count, size):
    path = real_clip(name)
    times, _, _ = read_video(path)
    with VideoReader(path) as reader:
        found = [frame.time_s for frame in reader.frames()]
    assert found == times and len(found) == count
    assert (reader.info.width, reader.info.height) == size


def test_a_tall_real_clip_opens_upright():
    with VideoReader(real_clip("kitchen_beard_1080x1920_25fps.mp4")) as reader:
        frames = reader.frames()
        assert next(frames).size_hw == (1920, 1080)
        assert reader.info.layout.matrix == "bt709" and reader.info.has_audio


@pytest.mark.parametrize(
    ("turn", "words"), [({"degrees": 0, "hflip": True}, "mirror"), ({"degrees": 45}, "45 degrees")]
)
def test_a_mirrored_or_slanted_display_is_refused(tmp_path, turn, words):
    path = tmp_path / "odd.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(**turn)
        for i in range(3):
            container.mux(stream.encode(video_frame(make_planes(i), "yuv420p", i, Fraction(1, 25))))
        container.mux(stream.encode(None))
    with pytest.raises(VideoReadError, match=words):
        VideoReader(path)


def make_planes(index):
    return frame_planes(ClipSpec(), index)
