"""Where the time goes in AlexNet: its work is in convolutions, its weights in affine layers.

Book, section 8.3.1; figure 8-14. The network of 2012, forward and backward, on a batch of pictures
of noise, which take as long as any others. How much of the time is which depends on the machine and
on the batch, for which the weights of the affine layers are fetched once: the smaller it is, the
more of the time is theirs.
"""

import numpy as np

import xpdl
from xpdl.cli.experiment import Experiment, run
from xpdl.models import AlexNet
from xpdl.optimizers import SGD
from xpdl.tuning.profile import profile_step


def main(experiment: Experiment) -> None:
    side, hidden, batch, rounds = experiment.choose(quick=(67, 64, 2, 1), full=(227, 4096, 128, 4))
    network = AlexNet((3, side, side), hidden_size=hidden, seed=experiment.seed)
    generator = np.random.default_rng(experiment.seed)
    x = xpdl.asarray(generator.random((batch, 3, side, side), np.float32))
    t = xpdl.asarray(generator.integers(0, 1000, batch))
    profile = profile_step(network, x, t, SGD(0.01), rounds=rounds)
    layers = [part for part in profile.parts if part.kind not in ("SGD", "")]
    for way in ("forward", "backward"):
        whole = sum(getattr(part, way) for part in layers)
        for kind in ("Convolution", "Affine", "MaxPooling", "LocalResponseNormalization"):
            share = sum(getattr(part, way) for part in layers if part.kind == kind) / whole
            book = "89 % (CPU), 95 % (GPU)" if (kind, way) == ("Convolution", "forward") else None
            experiment.record(f"share of {kind}, {way}", share, ".1%", book=book)
    experiment.record(f"a training step of {batch} pictures, in ms", 1000 * profile.step, ".0f")
    experiment.save(profile.chart())


if __name__ == "__main__":
    run(main)
