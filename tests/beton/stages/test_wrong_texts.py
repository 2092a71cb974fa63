"""Texts of stages that are wrong: user errors that say what and what to do; nothing in them is evaluated."""

import string

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beton.errors import UserError
from beton.stages.base import Crop, kind_of
from beton.stages.parse import STAGES, parse

WRONG = {
    "": "cannot read the stage ''",
    "rrc(96)|": "cannot read the stage ''",
    "rrc(96)||flip": "cannot read the stage ''",
    "rrc(96": "cannot read the stage",
    "rrc.flip(96)": "there is no module 'rrc.flip' for the stage",
    "96": "cannot read the stage",
    "rrcc(96)": "did you mean 'rrc'",
    "rrc(96)|flipp": "did you mean 'flip'",
    "rrc(96)|nonsense": f"use one of {', '.join(STAGES.names())}, or the dotted name of a module that defines STAGE",
    "flip|rrc(96)": "begin with rrc",
    "flip": "begin with rrc",
    "rrc(96)|center(96)": "one crop stage",
    "rrc(96)|normalize|flip": "put normalize last",
    "rrc(96)|normalize|normalize": "put normalize last",
    "rrc": "wrong arguments",
    "rrc(0)": "not a whole number",
    "rrc((48, 0))": "not a whole number",
    "rrc((48, 64, 3))": "neither a whole number of pixels nor (height, width)",
    "center((48,))": "neither a whole number of pixels nor (height, width)",
    "src((4.5, 9))": "not a whole number",
    "rrc(96.5)": "neither a whole number of pixels nor (height, width)",
    "rrc(True)": "not a whole number",
    "rrc('96')": "neither a whole number of pixels nor (height, width)",
    "rrc(96, 1, 2, 3)": "wrong arguments",
    "rrc(96, size=96)": "wrong arguments",
    "rrc(96, scael=(0.1, 1))": "scael",
    "rrc(96, scale=0.5)": "not a pair",
    "rrc(96, scale=(1, 0.5))": "not in order",
    "rrc(96, scale=(0.1, 1.5))": "not a number",
    "rrc(96, ratio=(0, 1))": "not a number",
    "rrc(96, scale=(0.1, 1), scale=(0.2, 1))": "twice",
    "rrc(96, **{'scale': (0.1, 1)})": "key=value",
    "rrc(*[96])": "not literals",
    "rrc(size)": "not literals",
    "rrc(90 + 6)": "not literals",
    "rrc(int('96'))": "not literals",
    "rrc({[]: 1})": "not literals",
    "center(96, ratio=1.1)": "not a number",
    "center(96, ratio=1e999)": "not a number",
    "rrc(96)|flip(2)": "not a number",
    "rrc(96)|flip(p=1+2j)": "not a number",
    "rrc(96)|normalize(mean=(1, 2))": "three numbers",
    "rrc(96)|normalize(std=(1, 0, 1))": "not a number",
    "rrc(96)|fl\nip": "cannot read the stage 'fl ip'",
    "rrc(\0)": "cannot read the stage",
    "rrc(\ud800)": "cannot read the stage",
    "rrc(8)|gray(2)": "not a number",
    "rrc(8)|vflip(-1)": "not a number",
    "rrc(8)|solarize(257)": "not a whole number",
    "rrc(8)|solarize(128, 2)": "not a number",
    "rrc(8)|blur(2)": "not a pair",
    "rrc(8)|blur((2, 1))": "not in order",
    "rrc(8)|blur((0, 1), True)": "not a number",
    "rrc(8)|jitter(-0.1)": "not a number",
    "rrc(8)|jitter(0.1, 'a')": "contrast='a'",
    "rrc(8)|jitter(saturation=101)": "saturation=101",
    "rrc(8)|three_augment(0.5)": "wrong arguments",
    "rrc(8)|normalize|erase(2)": "not a number",
    "rrc(8)|normalize|erase(0.5, 'row')": "none of const, rand, pixel",
    "rrc(8)|normalize|erase(0.5, ['const'])": "none of const",
    "rrc(8)|normalize|erase(scale=0.1)": "not a pair",
    "rrc(8)|normalize|erase(ratio=(0, 1))": "not a number",
    "rrc(8)|erase|normalize": "put normalize last",
    "rrc(8)|normalize|erase|flip": "put normalize last",
    "rrc(8)|erase": "put normalize before it",
    "rrc(8)|flip|erase(0.25)": "put normalize before it",
    "rrc(8)|randaugment('m9')": "does not begin with 'rand'",
    "rrc(8)|randaugment('augmix-m3')": "does not begin with 'rand'",
    "rrc(8)|randaugment(9)": "does not begin with 'rand'",
    "rrc(8)|randaugment('rand-x9')": "unknown part 'x9'",
    "rrc(8)|randaugment('rand-')": "unknown part ''",
    "rrc(8)|randaugment('rand-inc')": "has 'inc'",
    "rrc(8)|randaugment('rand-mstdinf')": "unknown part 'mstdinf'",
    "rrc(8)|randaugment('rand-m9.5')": "has 'm9.5'; give m a whole number",
    "rrc(8)|randaugment('rand-m')": "has 'm'",
    "rrc(8)|randaugment('rand-m2000')": "from 0 to 1000",
    "rrc(8)|randaugment('rand-m9-m8')": "has 'm' twice",
    "rrc(8)|randaugment('rand-n0')": "from 1 to 100",
    "rrc(8)|randaugment('rand-p1.5')": "give p a number from 0 to 1",
    "rrc(8)|randaugment('rand-inc2')": "from 0 to 1",
    "rrc(8)|randaugment('rand-mmax0')": "from 1 to 1000",
    "rrc(8)|randaugment('rand-tweights')": "'tweights', but weighted operations are not supported",
    "rrc(8)|randaugment('rand-t3a')": "not supported",
    "rrc(8)|randaugment('rand-w0')": "not supported",
    "rrc(8)|randaugment('rand-m\\n9')": "unknown part",
    "rrc(8)|randaugment('rand-m9', 'lanczos')": "no interpolation 'lanczos'",
    "rrc(8)|randaugment('rand-m9', fill=3)": "not three numbers",
    "rrc(8)|randaugment('rand-m9', fill=(1, 2, 300))": "not a whole number",
    "rrc(8, interpolation='cubic')": "'cubic' is not one of area, bilinear, bicubic, random",
    "center(8, interpolation='random')": "'random' is not one of area, bilinear, bicubic",
    "src(8, interpolation='area')": "'area' is not one of bilinear, bicubic",
    "rrc(8, interpolation=[])": "is not one of",
    "center(8, interpolation=None)": "is not one of",
    "src(8, padding=-1)": "not a whole number",
    "src(0)": "not a whole number",
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_text_is_a_user_error_that_says_what_and_what_to_do(text):
    with pytest.raises(UserError) as caught:
        parse(text)
    assert WRONG[text] in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    what, to_do = str(caught.value).rsplit("; ", 1)
    assert what and to_do


@pytest.mark.parametrize("text", ["(" * 5000, "-" * 100_000 + "1", "rrc(" + "[" * 150 + "]" * 150 + ")"])
def test_deeply_nested_text_is_a_user_error(text):
    with pytest.raises(UserError):
        parse(text)


def test_arguments_are_never_evaluated(tmp_path):
    file = tmp_path / "made"
    for code in (f"open({str(file)!r}, 'w')", f"__import__('os').mkdir({str(file)!r})"):
        for text in (f"rrc({code})", f"rrc(size={code})", f"rrc(96, *{code})", code, f"rrc(96, **{code})"):
            with pytest.raises(UserError):
                parse(text)
    assert not file.exists()


PARTS = st.sampled_from(
    ["rrc", "flip", "jitter", "normalize", "erase", "(", ")", "|", ",", "=", "9", "0.5", "[", "]", "-", "'"]
)


@settings(max_examples=300)
@given(st.one_of(st.text(), st.text(string.printable), st.lists(PARTS, max_size=12).map("".join)))
@example("rrc(0x" + "f" * 5000 + ")")
@example("rrc(" + "9" * 5000 + ")")
def test_any_text_is_stages_or_a_user_error(text):
    try:
        stages = parse(text)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert kind_of(stages[0]) is Crop
