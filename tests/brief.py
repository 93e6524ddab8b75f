"""What is trained ``quick`` in a test is trained briefly: a page or a command shows the same with one short epoch.

Notebooks run by tests execute this file as their kernel starts.
"""


def shorten() -> None:
    """Shorten the two protocols named quick, wherever they are already known."""
    from companion.training import FINE_TUNING_PROTOCOLS, QUICK

    tuning = {"epochs": 1, "patience": 1, "train_per_class": 16, "val_per_class": 8}
    for protocol, few in (
        (QUICK, {"epochs": 1, "images_per_epoch": 64}),
        (FINE_TUNING_PROTOCOLS["quick"], tuning),
    ):
        for name, value in few.items():
            object.__setattr__(protocol, name, value)


shorten()
