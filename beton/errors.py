"""The two ways in which the library fails for its user: something to correct, or a stored sample that is damaged.

Messages name arguments of the library's functions in backquotes; the scripts put their parameters in their place. They
show no secrets of URLs.
"""

import re


def without_secrets(text: str) -> str:
    """A text without what the URLs in it may have of secrets: passwords, and queries of web addresses, which may be
    signatures."""
    text = re.sub(r"(?<=://)[^/@\s,]*@", "", text)
    return re.sub(r"(https?://[^\s?,]*)\?[^\s,]*", r"\1", text)


class UserError(Exception):
    """Something that the user can correct: `what` is wrong, and what `to_do`.

    Scripts print `error: what; what to do` and exit with status 2.
    """

    def __init__(self, what: str, to_do: str):
        what = without_secrets(what)
        super().__init__(f"{what}; {to_do}")
        self.what, self.to_do = what, to_do

    def __reduce__(self):
        return type(self), (self.what, self.to_do)  # errors travel between processes


class DamagedSample(UserError):
    """A stored sample that cannot be decoded.

    Attributes: `dataset` (path), `sample` (index in the file), `field` (name), `why`; `what`, which is the
    message without what to do.
    """

    def __init__(
        self,
        dataset: str,
        sample: int,
        field: str,
        why: str,
        to_do: str = "write the dataset again, or set `on_error`='substitute'",
    ):
        super().__init__(f"sample {sample} of {dataset} is damaged (field '{field}': {why})", to_do)
        self.dataset, self.sample, self.field, self.why = without_secrets(dataset), sample, field, without_secrets(why)

    def __reduce__(self):
        return type(self), (self.dataset, self.sample, self.field, self.why, self.to_do)
