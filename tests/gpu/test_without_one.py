"""`--gpu` where there is no GPU (the ordinary tests hide it) is one line, and status 2."""

from tests.support.scripts import run_script


def test_it_says_so():
    done = run_script("-m", "pytest", "-q", "-p", "no:cacheprovider", "--gpu", "tests/gpu")
    said = (done.stdout + done.stderr).strip()
    assert done.returncode == 2, said
    assert len(said.splitlines()) == 1 and "the tests of a GPU need one" in said and "; run them on" in said
