"""Images a second of training the CIFAR-10 network of Li et al. (TMLR 2023) at a quarter of its width, by loss.

    python benchmarks/perf/time_training.py [--loss NAME]... [--batch B] [--threads N] [--device cuda] [--repeat K]

prints one JSON object: images a second (of the process's time on one thread, of wall clock
else), the best and the median of the repetitions, and the sum of the
losses, which tells whether two states of the code train alike. Images are random: nothing here depends on them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from toolkit.data.dataset import Dataset, Split
from toolkit.models.architecture_options import PresetNet
from toolkit.models.build import build_model
from toolkit.training.training_job import TrainingJob
from toolkit.training.training_loop import make_stepper, train_epoch
from toolkit.training.training_options import Training

LOSSES = ("standard", "pgd", "fgsm_gradalign", "ibp", "crown_ibp", "sabr", "mtl_ibp")
STEPS = 4
"""Steps of one repetition: about two seconds of the slowest loss on one core."""


def images_a_second(loss: str, arguments: argparse.Namespace) -> dict[str, object]:
    """Speed of one loss in the middle of a ramp of the radius, where every term of it counts."""
    torch.manual_seed(0)
    shape = (STEPS * arguments.batch, 3, 32, 32)
    data = Split(torch.rand(shape), torch.randint(0, 10, shape[:1])).to(torch.device(arguments.device))
    dataset = Dataset("random", data, data, data, 10, (0.49, 0.48, 0.45), (0.25, 0.24, 0.26))
    channels = tuple(c // arguments.divisor for c in (32, 64, 64, 128, 128))
    model = build_model(PresetNet(architecture="paper7", channels=channels), dataset, 0).to(arguments.device)
    training = Training.model_validate(
        {
            "loss": loss,
            "epochs": 4,
            "batch": arguments.batch,
            "epsilon": 2 / 255,
            "ramp": {"start": 1, "length": 8},
        }
    )
    job = TrainingJob(training, data, "crop_flip")
    stepper = make_stepper(model, training)
    train_epoch(model, stepper, job, 2, {})
    speeds, clock = [], time.perf_counter if arguments.device == "cuda" or arguments.threads > 1 else time.process_time
    for _ in range(arguments.repeat):
        began = clock()
        train_epoch(model, stepper, job, 3, {})
        if arguments.device == "cuda":
            torch.cuda.synchronize()
        speeds.append(len(data.labels) / (clock() - began))
    weights = sum(float(parameter.detach().double().abs().sum()) for parameter in model.parameters())
    return {"best": round(max(speeds)), "median": round(statistics.median(speeds)), "weights": round(weights, 3)}


def main() -> None:
    """Print the speeds of all losses that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loss", action="append", choices=LOSSES)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--divisor", type=int, default=4, help="the network's width is the paper's by this number")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(json.dumps({loss: images_a_second(loss, arguments) for loss in arguments.loss or LOSSES}, indent=1))


if __name__ == "__main__":
    main()
