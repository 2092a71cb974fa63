"""The two ways in which the data path fails: the user can mend it, or a stored sample is damaged."""


class UserError(Exception):
    """Something that the user can mend. Scripts print `error: what; what to do` and exit with status 2."""

    def __init__(self, what: str, to_do: str):
        super().__init__(f"{what}; {to_do}")


class DamagedSample(UserError):
    """A stored sample that cannot be decoded.

    Attributes: `dataset` (path), `sample` (index in the file), `field` (name), `why`.
    """

    def __init__(self, dataset: str, sample: int, field: str, why: str):
        super().__init__(
            f"sample {sample} of {dataset} is damaged (field '{field}': {why})",
            "write the dataset again",
        )
        self.dataset, self.sample, self.field, self.why = dataset, sample, field, why
