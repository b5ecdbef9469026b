"""The ranks beside the first: they train along, and leave files and talk to it."""

from __future__ import annotations

from xpdl.backends import use_backend
from xpdl.distributed.ranks import Ranks
from xpdl.errors import RanksError
from xpdl.runs.folder import going_on
from xpdl.runs.options import RunOptions
from xpdl.runs.preparation import load_data, make_network, make_trainer
from xpdl.runs.signals import stopping_in_order


def follow(options: RunOptions, ranks: Ranks) -> None:
    """Train with rank 0, which has a `Run` of the same options.

    Raises
    ------
    Stopped
        If one of the ranks was stopped by a signal; rank 0 has kept all.
    XpdlError
        Whatever ends the run of rank 0.
    """
    with use_backend(options.backend):
        network = make_network(options)
        train, test = load_data(options.data, network, normalize=False)
        trainer = make_trainer(options, network, train, test, ranks=ranks, progress=False)
        try:
            with stopping_in_order(trainer.interrupt):
                trainer.fit()
        except RanksError as error:
            if trainer.checkpoint is None:  # rank 0 has not told its folder
                raise
            raise going_on(error, trainer.checkpoint.parent) from error
