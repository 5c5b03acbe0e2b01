"""METHOD[:KEY=VALUE...]: what `evaluate` and `benchmark` take, read in one place."""

import pytest

from ortcam.errors import OptionError
from ortcam.request import parse_entry


def test_an_entry_has_options_limits_and_a_precision() -> None:
    entry = parse_entry(" ScoreCAMpp:gate=sigmoid : budget=12%:precision=int8:augment=4:augment-combine=max ")
    assert entry.name == "scorecam++:gate=sigmoid:budget=12%:precision=int8:augment=4:augment-combine=max"
    assert entry.precision == "int8"
    assert entry.details == "gate sigmoid, budget 12%, precision int8, augment 4, augment combine max"
    request = entry.request
    assert (request.settings.method.name, request.settings.options["gate"]) == ("scorecam++", "sigmoid")
    assert request.limits.budget == 0.12
    assert request.settings.augmentation is not None
    assert (request.settings.augmentation.copies, request.settings.augmentation.combine) == (4, "max")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fullgrad", "unknown method 'fullgrad'; accepted: auto, scorecam"),
        ("scorecam:gate=tanh", "scorecam: unknown option 'gate'"),
        ("scorecam:target=3", "unknown option 'target'"),
        ("scorecam:augment_flip=yes", "augment_flip without augment"),
        ("scorecam:budget=some", "budget='some' is not a number"),
        ("scorecam:budget=1:budget=2", "budget is given twice"),
        ("scorecam:precision=int8:precision=fp16", "precision is given twice"),
        ("scorecam:budget", "accepted is METHOD or METHOD:KEY=VALUE"),
        ("cam:precision=int8", r"precision goes with methods that mask the image, such as scorecam\+\+"),
        ("cam:budget=3", "budget with cam"),
    ],
)
def test_a_wrong_entry_names_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse_entry(text)
