"""What is trained ``quick`` in a test is trained briefly: a page or a command shows the same with one short epoch.

Notebooks run by tests execute this file, and `small`, as their kernel starts.
"""


def shorten() -> None:
    """Shorten the two protocols named quick, wherever they are already known, and resample less after fine-tuning."""
    from companion import tuning
    from companion.training import FINE_TUNING_PROTOCOLS, QUICK

    tuning.RESAMPLES = 20
    vars(QUICK).update(epochs=1, images_per_epoch=64)
    vars(FINE_TUNING_PROTOCOLS["quick"]).update(epochs=1, patience=1, train_per_class=16, val_per_class=8)


def small() -> None:
    """Make sources that name no architecture the smallest network, and verify with one seed."""
    from companion.ranking import verification
    from companion.sources import load_source

    load_source.__kwdefaults__["architecture"] = "shufflenet_v2_x0_5"
    verification.SEEDS = 1


shorten()
