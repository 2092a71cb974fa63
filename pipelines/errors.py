"""The two ways in which the data path fails: the user can mend it, or a stored sample is damaged."""


class UserError(Exception):
    """Something that the user can mend. Scripts print `error: what; what to do` and exit with status 2."""

    def __init__(self, what: str, to_do: str):
        super().__init__(f"{what}; {to_do}")


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
        to_do: str = "write the dataset again, or set data.on_error=substitute",
    ):
        self.what = f"sample {sample} of {dataset} is damaged (field '{field}': {why})"
        super().__init__(self.what, to_do)
        self.dataset, self.sample, self.field, self.why = dataset, sample, field, why
