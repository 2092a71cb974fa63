"""Every stage in the pipelines that run it: the same batches again, whatever the workers."""

import pytest

from tests.support.loaders import fingerprint, run_epoch

STAGES = [
    "gray(0.5)|vflip|normalize",
    "three_augment|jitter(0.3)|normalize",
    "blur(p=0.5)|solarize(100, 0.5)|normalize",
    "randaugment('rand-m9-mstd0.5-inc1')|normalize",
    "normalize|erase(0.5)",
    "translate(3, (9, 90, 200))|cutout(7)|normalize",
]


@pytest.mark.parametrize(("name", "data"), [("beton", "beton"), ("torch", "folder")])
@pytest.mark.parametrize(
    "stages",
    [
        *(f"rrc(24)|flip|{stage}" for stage in STAGES),
        "rrc(24, interpolation='random')|flip|normalize",
        "src(24)|flip|normalize",
    ],
)
def test_stages_give_the_same_again_with_any_number_of_workers(numbered, name, data, stages):
    found = [
        fingerprint(run_epoch(name, numbered[data], stages=text, workers=workers))
        for workers, text in ((1, stages), (2, stages), (2, "rrc(24)|flip|normalize"))
    ]
    assert found[0] == found[1] != found[2]
