"""What ImageData's arguments may be, known without torch."""

from sagitta.errors import ConfigError


def check_arguments(
    batch_size: int | None,
    image_size: int | None,
    profile: str | None,
    folds: int | None,
    fold: int | None,
    transform_workers: int = 0,
) -> None:
    """Refuse arguments of :class:`sagitta.ImageData` that are out of range.

    Raises:
        ConfigError: one is.
    """
    for name, value, least in (
        ("batch size", batch_size, 1),
        ("image size", image_size, 1),
        ("transform workers", transform_workers, 0),
        ("folds", folds, 2),
        ("fold", fold, 1),
    ):
        if value is not None and value < least:
            raise ConfigError(f"{name} {value}: must be at least {least}")
    if fold is not None and (folds is None or fold > folds):
        raise ConfigError(f"fold {fold}: must be one of {folds or 'some'} folds")
    if profile not in (None, "exact", "fast"):
        raise ConfigError(f"profile {profile!r}: must be 'exact' or 'fast'")
