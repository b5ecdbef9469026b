"""Where the time of a training step goes: most of it into the convolutions.

Book, section 8.3.1; figure 8-14. The book measures the forward pass of AlexNet; here it is
DeepConvNet on a batch of 100. A ReLU right behind a convolution or an affine layer is computed in
the same pass, and counts there.
"""

import xpdl
from xpdl.cli.experiment import Experiment, run
from xpdl.models import DeepConvNet
from xpdl.optimizers import Adam
from xpdl.tuning.profile import profile_step


def main(experiment: Experiment) -> None:
    rounds = experiment.choose(quick=3, full=30)
    (x, t), _ = xpdl.datasets.load_mnist(flatten=False)
    network = DeepConvNet(seed=experiment.seed)
    profile = profile_step(network, x[:100], t[:100], Adam(), rounds=rounds)
    print(profile.table())
    experiment.save(profile.chart())
    layers = [part for part in profile.parts if part.kind not in ("Adam", "")]
    for way in ("forward", "backward"):
        whole = sum(getattr(part, way) for part in layers)
        convolutions = [part for part in layers if part.kind == "Convolution"]
        share = sum(getattr(part, way) for part in convolutions) / whole
        book = "89 % (CPU), 95 % (GPU) in AlexNet" if way == "forward" else None
        experiment.record(f"share of convolution, {way}", share, ".1%", book=book)
    experiment.record("a training step of 100 images, in ms", 1000 * profile.step, ".1f")


if __name__ == "__main__":
    run(main)
