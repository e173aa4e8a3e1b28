"""The parts of training, each held to its formula: freezing, rates, averages, augmentation, mixup, loss."""

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from models.common.backbones.classifiers import Backbone
from models.common.data.decoded_cache import Decoded
from models.common.data.held_out import with_validation
from models.common.errors import RatchetError
from models.common.image.augmentation import color_jitter, random_affine, random_erasing, random_shift_flip
from models.common.image.normalisation import Normalised
from models.common.training.checkpoints import Checkpoints
from models.common.training.freezing import LayerGroup, freeze, head_only_epochs, layer_groups, trainable_groups
from models.common.training.logger import TrainingLogger
from models.common.training.loop import TrainingResult, fit
from models.common.training.optimizers import (
    ExponentialMovingAverage,
    build_optimizer,
    set_learning_rate,
)
from models.common.training.recipe import resolve
from models.common.training.schedule import Schedule
from models.image_classification.learner import ImageLearner, Photos
from models.image_classification.params import ImageTrain


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return Backbone("small_cnn", 8, 8).build(3)


def groups_of(network: nn.Module) -> list[LayerGroup]:
    return layer_groups(network, Backbone("small_cnn", 8, 8).head(network))


def one_step(network: nn.Module, train: ImageTrain) -> None:
    chosen = build_optimizer(groups_of(network), train)
    F.cross_entropy(network(torch.rand(8, 3, 8, 8)), torch.arange(8) % 3).backward()  # type: ignore[no-untyped-call]
    chosen.step()


def test_only_the_head_learns_when_only_it_is_unfrozen_and_batch_norm_keeps_its_statistics(network: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    freeze(network, groups_of(network), 1)
    one_step(network, ImageTrain(learning_rate=0.1))
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_everything_learns_when_all_is_unfrozen(network: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    freeze(network, groups_of(network), len(groups_of(network)))
    one_step(network, ImageTrain(learning_rate=0.1))
    assert all(not torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_gradual_unfreezing_goes_from_the_head_down_and_is_done_by_half_time() -> None:
    assert [trainable_groups("gradual", 5, epoch, 8, 0) for epoch in range(8)] == [1, 2, 3, 4, 5, 5, 5, 5]
    assert [trainable_groups("gradual", 9, epoch, 4, 0) for epoch in range(4)] == [1, 5, 9, 9]
    assert [trainable_groups("head", 5, epoch, 8, 0) for epoch in range(8)] == [1] * 8
    assert [trainable_groups("all", 5, epoch, 8, 0) for epoch in range(8)] == [5] * 8


def test_a_new_head_learns_alone_first_for_some_updates_and_never_for_most_of_the_epochs() -> None:
    assert [trainable_groups("head_first", 5, epoch, 8, 2) for epoch in range(8)] == [1] * 2 + [5] * 6
    assert head_only_epochs("head_first", steps=200, epochs=8) == 1
    assert head_only_epochs("head_first", steps=20, epochs=30) == 3
    assert head_only_epochs("head_first", steps=2, epochs=8) == 2
    assert head_only_epochs("head_first", steps=2, epochs=1) == 0
    assert head_only_epochs("all", steps=2, epochs=8) == 0


def test_each_group_learns_at_the_decayed_rate_of_the_next_and_norms_and_biases_are_not_decayed(
    network: nn.Module,
) -> None:
    groups = groups_of(network)
    chosen = build_optimizer(groups, ImageTrain(learning_rate=0.1, layer_decay=0.5, weight_decay=0.3))
    settings = {id(p): (g["lr"], g["weight_decay"]) for g in chosen.param_groups for p in g["params"]}
    assert len(groups) == 4
    for place, group in enumerate(groups):
        for parameter in group.parameters:
            expected = 0.1 * 0.5 ** (len(groups) - 1 - place), 0.3 if parameter.ndim > 1 else 0.0
            assert settings[id(parameter)] == pytest.approx(expected)
    set_learning_rate(chosen, 0.25)
    assert {g["lr"] for g in chosen.param_groups} == {0.25 * g["peak"] for g in chosen.param_groups}


def test_sgd_has_nesterov_momentum(network: nn.Module) -> None:
    chosen = build_optimizer(groups_of(network), ImageTrain(optimizer="sgd", momentum=0.8))
    assert isinstance(chosen, torch.optim.SGD)
    assert all(group["nesterov"] and group["momentum"] == 0.8 for group in chosen.param_groups)


def test_the_rate_rises_stays_and_comes_down() -> None:
    schedule = Schedule(ImageTrain(epochs=10, warmup_epochs=2, decay_share=0.4), head_epochs=0)
    rates = [schedule.factor(time) for time in (0, 1, 2, 5, 6, 8, 9.5, 10)]
    assert rates == pytest.approx([0, 0.5, 1, 1, 1, 0.5, 0.125, 0])


def test_the_way_down_is_as_long_where_the_search_ends_early_and_is_never_put_off() -> None:
    schedule = Schedule(ImageTrain(epochs=10, warmup_epochs=0, decay_share=0.4), head_epochs=0)
    schedule.decay_now(3)
    assert (schedule.decay_from, schedule.epochs) == (3, 7)
    assert [schedule.factor(time) for time in (2.9, 3, 5, 7)] == pytest.approx([1, 1, 0.5, 0])
    schedule.decay_now(5)
    assert schedule.epochs == 7


def test_the_rate_rises_again_where_the_rest_opens() -> None:
    schedule = Schedule(ImageTrain(epochs=10, warmup_epochs=1), head_epochs=2)
    assert [schedule.factor(time) for time in (0.5, 1, 2, 2.5, 3)] == pytest.approx([0.5, 1, 0, 0.5, 1])


def resolved(examples: int, *, has_initial: bool = False, **train: Any) -> ImageTrain:
    return resolve(ImageTrain(**train), examples, has_initial=has_initial)


def test_small_data_is_gone_through_more_often_in_smaller_batches() -> None:
    recipes = [resolved(examples, network="small_cnn") for examples in (50, 500, 5_000, 50_000)]
    sizes, epochs = [recipe.batch_size for recipe in recipes], [recipe.epochs for recipe in recipes]
    assert sizes == sorted(sizes)
    assert epochs == sorted(epochs, reverse=True)
    assert sizes[0] < sizes[-1]
    assert epochs[0] > epochs[-1]
    updates = [
        epoch * -(-examples // size)
        for epoch, examples, size in zip(epochs[1:], (500, 5000, 50_000), sizes[1:], strict=True)
    ]
    assert min(updates) >= 900


def test_what_params_give_is_kept_and_nothing_is_left_open() -> None:
    given: dict[str, Any] = {
        "epochs": 3,
        "batch_size": 7,
        "learning_rate": 0.2,
        "ema_decay": 0.0,
        "layer_decay": 0.5,
        "unfreeze": "all",
    }
    recipe = resolved(1000, network="resnet18", weights="none", **given)
    assert {name: getattr(recipe, name) for name in given} == given
    assert resolved(1000, network="resnet18", weights="none", warmup_epochs=40, epochs=60).warmup_epochs == 30
    left_open = resolved(1000, network="small_cnn")
    assert left_open.epochs
    assert left_open.batch_size
    assert left_open.learning_rate
    assert left_open.ema_decay


def test_trained_weights_take_fewer_epochs_smaller_steps_and_a_head_that_starts_alone() -> None:
    fresh, tuned = (resolved(1000, network="resnet18", weights=weights) for weights in ("none", "auto"))
    assert (fresh.weights, fresh.unfreeze) == ("none", "all")
    assert (tuned.weights, tuned.unfreeze) == ("imagenet", "head_first")
    assert tuned.epochs < fresh.epochs
    assert tuned.learning_rate < fresh.learning_rate
    champion = resolved(1000, has_initial=True, network="small_cnn", weights="champion")
    assert (champion.weights, champion.unfreeze) == ("champion", "all")  # its head knows the classes
    assert resolved(1000, network="small_cnn", weights="champion").weights == "none"  # there is none yet
    assert resolved(1000, network="resnet18", weights="champion").weights == "imagenet"


def test_the_stem_learns_slowest_whatever_the_number_of_groups(network: nn.Module) -> None:
    groups = groups_of(network)
    chosen = build_optimizer(groups, resolved(100, has_initial=True, weights="champion", learning_rate=0.1))
    rates = {id(parameter): group["lr"] for group in chosen.param_groups for parameter in group["params"]}
    ends = [rates[id(group.parameters[0])] for group in (groups[0], groups[-1])]
    assert ends == pytest.approx([0.01, 0.1])


def test_the_average_follows_its_formula_in_weights_and_in_batch_norms_statistics() -> None:
    network: Any = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    average = ExponentialMovingAverage(network, 0.9)
    expected = {name: tensor.clone().double() for name, tensor in network.state_dict().items()}
    for update in range(1, 4):
        with torch.no_grad():
            network[0].weight += 1
            network[1].running_mean += 2
            network[1].num_batches_tracked += 1
        average.update()
        decay = min(0.9, (1 + update) / (10 + update))
        for name in ("0.weight", "1.running_mean"):
            expected[name] = decay * expected[name] + (1 - decay) * network.state_dict()[name].double()
    own = network[0].weight.item()
    with average.applied():
        assert network[0].weight.item() == pytest.approx(expected["0.weight"].item())
        assert network[1].running_mean.item() == pytest.approx(expected["1.running_mean"].item())
        assert network[1].num_batches_tracked.item() == 3
    assert network[0].weight.item() == own


def test_moved_pictures_are_shifted_with_reflection_or_mirrored() -> None:
    torch.manual_seed(0)
    picture = torch.arange(64, dtype=torch.uint8).view(1, 8, 8, 1).expand(200, 8, 8, 3)
    padded = F.pad(picture[:1].permute(0, 3, 1, 2).float(), (2, 2, 2, 2), mode="reflect").permute(0, 2, 3, 1).byte()
    windows = [padded[0, y : y + 8, x : x + 8] for y in range(5) for x in range(5)]
    allowed = torch.stack(windows + [window.flip(1) for window in windows])
    out = random_shift_flip(picture, 0.25, flip=True)
    found = [(allowed == each).flatten(1).all(1).nonzero() for each in out]
    assert all(len(place) == 1 for place in found)
    assert len({int(place) for place in found}) > 40  # nearly all of the 50 there are


def test_no_augmentation_changes_nothing() -> None:
    pictures = torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8)
    floats = pictures.permute(0, 3, 1, 2).float()
    assert torch.equal(random_shift_flip(pictures, 0, flip=False), pictures)
    assert torch.equal(random_erasing(color_jitter(random_affine(floats, 0, 0), 0, 0), 0), floats)


def test_zooming_in_keeps_the_middle_and_rotation_by_nothing_else_moves_it() -> None:
    torch.manual_seed(0)
    ramp = torch.arange(32.0).expand(16, 3, 32, 32)
    zoomed = random_affine(ramp, 0.5, 0)
    assert zoomed.mean(dim=(1, 2, 3)) == pytest.approx(np.full(16, 15.5), abs=0.1)
    assert (zoomed.amax(dim=(1, 2, 3)) <= 31).all()
    spread = zoomed[:, 0, 0, -1] - zoomed[:, 0, 0, 0]
    assert spread.min() < 20
    assert spread.max() > 26
    turned = random_affine(ramp, 0, 180)
    assert not torch.allclose(turned, ramp)


def test_colour_changes_stay_in_range_and_in_their_shares() -> None:
    torch.manual_seed(0)
    grey = torch.full((64, 3, 4, 4), 100.0)
    bright = color_jitter(grey, 0.2, 0)[:, 0, 0, 0]
    assert 80 <= bright.min() < 85
    assert 115 < bright.max() <= 120
    assert torch.allclose(color_jitter(grey, 0, 0.5), grey)  # contrast about the mean leaves an even picture alone
    white = color_jitter(torch.full((8, 3, 2, 2), 250.0), 0.5, 0)
    assert white.max() <= 255


def test_a_share_of_pictures_loses_a_rectangle() -> None:
    torch.manual_seed(0)
    lost = (random_erasing(torch.ones(400, 3, 16, 16), 0.5) == 0).float().mean(dim=(1, 2, 3))
    assert 0.4 < (lost > 0).float().mean() < 0.6
    assert lost.max() <= 0.26


class Fixed:
    """Four pictures, as Decoded gives them."""

    shape = (8, 8, 3)

    def __init__(self) -> None:
        self.pictures = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return 4

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.pictures[positions]


def learner_of(network: nn.Module, **train: Any) -> ImageLearner:
    photos = Photos(cast(Decoded, Fixed()), np.array([0, 1, 2, 0]), torch.device("cpu"))
    settings = ImageTrain(**{"network": "small_cnn", "augment": {"crop": 0}, "batch_size": 3, **train})
    return ImageLearner(Normalised(network), groups_of(network), photos, photos, settings)


def scaled(pictures: NDArray[np.uint8]) -> torch.Tensor:
    mean, deviation = (torch.tensor(each).view(1, 3, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255 - mean) / deviation


def test_the_loss_is_cross_entropy_of_pictures_scaled_as_torchvision_does(network: nn.Module) -> None:
    learner = learner_of(network.eval(), label_smoothing=0.1)
    batch = learner.fetch(np.arange(4))
    expected = F.cross_entropy(network(scaled(Fixed().pictures)), torch.tensor([0, 1, 2, 0]), label_smoothing=0.1)
    assert learner.loss(batch).item() == pytest.approx(expected.item(), rel=1e-4)


def test_validation_is_plain_cross_entropy_and_accuracy_whatever_the_batches(network: nn.Module) -> None:
    learner = learner_of(network.eval(), label_smoothing=0.5, mixup=1.0)
    with torch.inference_mode():
        logits = network(scaled(Fixed().pictures))
        row = learner.evaluate()
    classes = torch.tensor([0, 1, 2, 0])
    assert row["val_loss"] == pytest.approx(F.cross_entropy(logits, classes).item(), rel=1e-4)
    assert row["val_accuracy"] == (logits.argmax(1) == classes).float().mean().item()


def test_mixup_weighs_pictures_and_losses_alike(network: nn.Module) -> None:
    learner = learner_of(network.eval(), mixup=0.4)
    batch = learner.fetch(np.arange(4))
    torch.manual_seed(5)
    loss = learner.loss(batch).item()
    torch.manual_seed(5)
    share = float(torch.distributions.Beta(0.4, 0.4).sample())
    other = torch.randperm(4)
    inputs = scaled(Fixed().pictures)
    logits = network(share * inputs + (1 - share) * inputs[other])
    both = F.cross_entropy(logits, batch[1]), F.cross_entropy(logits, batch[1][other])
    assert loss == pytest.approx((share * both[0] + (1 - share) * both[1]).item(), rel=1e-4)


def test_auxiliary_logits_add_three_tenths_of_their_loss(network: nn.Module) -> None:
    learner = learner_of(network)
    logits, classes = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    loss = F.cross_entropy(logits, classes).item()
    assert learner.class_loss((logits, logits), classes).item() == pytest.approx(1.3 * loss, rel=1e-5)


def test_a_delivery_of_train_and_test_alone_gets_validation_examples_by_whole_groups() -> None:
    groups = [f"scene{number // 3}" for number in range(300)]
    manifest = pd.DataFrame({"split": ["train"] * 240 + ["test"] * 60, "group": groups})
    found = with_validation(manifest, 0.1)
    assert 6 <= (found["split"] == "val").sum() <= 48
    assert found.loc[240:, "split"].eq("test").all()
    assert not set(found.loc[found["split"] == "val", "group"]) & set(found.loc[found["split"] == "train", "group"])
    more = pd.concat([manifest, manifest.assign(group=manifest["group"] + " new")], ignore_index=True)
    again = with_validation(more, 0.1)
    held = set(found.loc[found["split"] == "val", "group"])
    assert held == set(again.loc[again["split"] == "val", "group"]) & set(manifest["group"])  # as data grows
    few = pd.DataFrame({"split": ["train"] * 4, "group": ["a", "a", "b", "b"]})
    assert (with_validation(few, 0.01)["split"] == "val").sum() == 2  # one group, where the share comes to none
    assert with_validation(found, 0.1) is found  # its own stay what they are
    assert with_validation(manifest, 0.0) is manifest


class Measured:
    """A learner of one weight whose validation gives these values, one an epoch."""

    examples = 2
    validation_examples = 1000

    def __init__(self, *values: float) -> None:
        self.network: nn.Module = nn.Linear(1, 1)
        self.groups = layer_groups(self.network, [self.network])
        self.values = iter(values)

    def fetch(self, positions: NDArray[np.int64]) -> torch.Tensor:
        return torch.ones(len(positions), 1)

    def loss(self, batch: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.network(batch).square().mean()
        return loss

    def evaluate(self) -> dict[str, float]:
        return {"val_loss": 1.0, "val_score": next(self.values)}


def fitted(folder: Path, *values: float, validation_examples: int = 1000, **train: Any) -> TrainingResult:
    """A training whose val_score takes these values, one an epoch."""
    settings = resolve(ImageTrain(**{"precision": "fp32", "epochs": len(values), **train}), 2, has_initial=False)
    learner = Measured(*values)
    learner.validation_examples = validation_examples
    checkpoints, curves = Checkpoints(folder), TrainingLogger(None, len(values))
    return fit(learner, settings, "val_score", torch.device("cpu"), checkpoints, curves)


def test_an_epoch_whose_metric_is_nan_is_never_the_best(tmp_path: Path) -> None:
    assert fitted(tmp_path / "first", math.nan, 0.5, 0.7, 0.6).best_epoch == 3
    assert fitted(tmp_path / "later", 0.5, math.nan, 0.7, math.nan).best_epoch == 3


def test_of_equal_epochs_the_later_one_is_kept(tmp_path: Path) -> None:
    assert fitted(tmp_path, 0.5, 0.7, 0.7, 0.6).best_epoch == 3


def test_the_search_ends_early_and_the_rate_still_comes_down(tmp_path: Path) -> None:
    values = [0.5, 0.6, *[0.55] * 18]
    result = fitted(tmp_path / "early", *values, early_stopping=3, decay_share=0.4)
    assert (len(result.history), result.decay_from, result.stopped_early) == (5 + 8, 6, True)
    rates = [row["learning_rate"] for row in result.history]
    assert rates[4] == rates[1] > rates[6] > rates[-1] > 0
    whole = fitted(tmp_path / "off", *values, early_stopping=0, decay_share=0.4)
    assert (len(whole.history), whole.decay_from, whole.stopped_early) == (20, 13, False)
    late = fitted(tmp_path / "late", *values[:10], early_stopping=5, decay_share=0.4)
    assert (len(late.history), late.stopped_early) == (10, False)  # the rate comes down already


def test_few_validation_examples_choose_no_epoch_and_end_nothing(tmp_path: Path) -> None:
    few = fitted(tmp_path / "few", 0.9, *[0.5] * 9, validation_examples=49, early_stopping=1)
    assert (few.best_epoch, len(few.history), few.selected_by) == (10, 10, "being the last")
    enough = fitted(tmp_path / "enough", 0.9, *[0.5] * 9, validation_examples=50, early_stopping=1)
    assert (enough.best_epoch, enough.selected_by) == (1, "val_score")


def test_a_metric_that_is_always_nan_is_one_line_and_no_best_epoch(tmp_path: Path) -> None:
    with pytest.raises(
        RatchetError, match="best epoch cannot be selected: val_score was no finite number after any of 2"
    ):
        fitted(tmp_path, math.nan, math.nan)


class Fitted(Measured):
    """A learner of a straight line from seven points."""

    examples = 7

    def __init__(self) -> None:
        super().__init__(*[0.0] * 3)
        torch.nn.init.zeros_(self.network.weight)  # type: ignore[arg-type]

    def fetch(self, positions: NDArray[np.int64]) -> torch.Tensor:
        return torch.tensor(positions, dtype=torch.float32)[:, None]

    def loss(self, batch: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = (self.network(batch) - 3 * batch).square().mean()
        return loss


@pytest.mark.parametrize("batch_size", [7, 3])
def test_a_batch_learnt_from_in_two_parts_updates_the_weights_as_a_whole_one(tmp_path: Path, batch_size: int) -> None:
    weights, losses = [], []
    for accumulation in (1, 2):
        learner, logger = Fitted(), TrainingLogger(None, 3)
        torch.nn.init.zeros_(learner.network.bias)  # type: ignore[arg-type]
        settings = resolve(ImageTrain(epochs=3, batch_size=batch_size, precision="fp32"), 7, has_initial=False)
        place = Checkpoints(tmp_path / str(accumulation))
        result = fit(learner, settings, "val_loss", torch.device("cpu"), place, logger, accumulation)
        weights.append([parameter.tolist() for parameter in learner.network.parameters()])
        losses.append([row["train_loss"] for row in result.history])
        assert result.accumulation == accumulation
    assert np.concatenate(weights[1], axis=None) == pytest.approx(np.concatenate(weights[0], axis=None), rel=1e-5)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
