"""Windows of long and short recordings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ecgcmr.ecg.preprocessing import EcgPipeline, Step, named_pipeline
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.ecg.reduced import NoLeadError
from ecgcmr.hub.expected import synthetic_recording
from ecgcmr.hub.windows import Cutter, Window

PIPELINE = named_pipeline("highpass")  # 10 s at 100 Hz


def windows(recording: EcgRecording, n_samples: int = 200, **options: object) -> list[Window]:
    return list(Cutter(PIPELINE, n_samples, **options)(recording))  # type: ignore[arg-type]


def part(recording: EcgRecording, begin_s: float, end_s: float) -> EcgRecording:
    return replace(recording, samples=recording.samples[:, int(begin_s * 500) : int(end_s * 500)])


def test_cutter__the_first_window_is_the_start_of_the_prepared_recording() -> None:
    recording = synthetic_recording(seconds=25)
    (found,) = windows(recording)
    assert np.array_equal(found.samples, PIPELINE(recording)[:, :200])
    assert found.start_s == 0


def test_cutter__all_windows_lie_side_by_side_in_segments_prepared_as_in_training() -> None:
    recording = synthetic_recording(seconds=25.5)
    found = windows(recording, windows="all")
    assert [window.start_s for window in found] == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22]
    second = PIPELINE(part(recording, 10, 20))
    for i, window in enumerate(found[5:10]):
        assert np.array_equal(window.samples, second[:, 200 * i : 200 * (i + 1)])
    assert [window.start_s for window in windows(recording, windows=7)] == [0, 2, 4, 6, 8, 10, 12]
    for count in (1, 3):  # fewer are a beginning of more
        some = windows(recording, windows=count)
        assert all(np.array_equal(a.samples, b.samples) for a, b in zip(some, found[:count], strict=True))


def test_cutter__the_padded_end_and_what_the_pipeline_refuses_give_no_window() -> None:
    assert len(windows(synthetic_recording(seconds=7), windows="all")) == 3
    assert len(windows(synthetic_recording(seconds=14), windows="all")) == 5  # 4 s are left, it takes 5
    assert len(windows(synthetic_recording(seconds=14), n_samples=1000, windows="all")) == 1


def test_cutter__short_recordings() -> None:
    recording = synthetic_recording(seconds=7)
    with pytest.raises(ValueError, match=r"lasts 7 s, the model reads 10 s; give short='pad'"):
        windows(recording, n_samples=1000)
    (padded,) = windows(recording, n_samples=1000, short="pad")
    assert np.array_equal(padded.samples, PIPELINE(recording))
    assert not padded.samples[:, 700:].any()
    (repeated,) = windows(recording, n_samples=1000, short="repeat")
    tiled = replace(recording, samples=np.concatenate([recording.samples, recording.samples[:, :1500]], axis=1))
    assert np.array_equal(repeated.samples, PIPELINE(tiled))
    with pytest.raises(ValueError, match="at least 5 s are needed"):
        windows(synthetic_recording(seconds=3))
    assert len(windows(synthetic_recording(seconds=3), short="repeat")) == 1


def test_cutter__leads_may_come_and_go() -> None:
    recording = synthetic_recording(seconds=30)
    samples = recording.samples.copy()
    samples[6, 5000:10000] = np.nan  # V1 off in the second segment, all leads in the third
    samples[:, 10000:] = np.nan
    found = windows(replace(recording, samples=samples), windows="all")
    assert [len(window.leads) for window in found] == [12] * 5 + [11] * 5
    assert "V1" not in found[5].leads
    with pytest.raises(NoLeadError):
        windows(replace(recording, samples=np.full_like(samples, np.nan)), windows="all")


@pytest.mark.parametrize("wrong", ["some", 0, -1, True, 1.5])
def test_cutter__windows_are_a_word_or_a_number(wrong: object) -> None:
    with pytest.raises(ValueError, match="'first', 'all' or a whole number"):
        Cutter(PIPELINE, 200, wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'refuse', 'pad' or 'repeat'"):
        Cutter(PIPELINE, 200, short="stretch")  # type: ignore[arg-type]


def test_cutter__a_pipeline_that_takes_the_middle_has_one_window() -> None:
    steps = (
        Step("cut_duration", {"seconds": 10.0, "where": "center"}),
        Step("to_rate", {"hz": 100.0}),
        Step("fit_duration", {"seconds": 10.0}),
    )
    middle = EcgPipeline("middle", steps)
    recording = synthetic_recording(seconds=20)
    (found,) = Cutter(middle, 200)(recording)
    assert np.array_equal(found.samples, middle(recording)[:, :200])
    with pytest.raises(ValueError, match="does not begin at the start"):
        Cutter(middle, 200, "all")
