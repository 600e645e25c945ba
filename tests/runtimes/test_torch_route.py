"""torch: what a runtime answers is what the bare detector answers, however it was folded and laid out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from detseg import catalog
from detseg.annotations import Categories
from detseg.checkpoints import load
from detseg.detectors.contract import Detector
from detseg.errors import DetsegError, WeightsError
from detseg.preprocess import Preprocess
from detseg.results import RawDetections
from detseg.runtimes import open_runtime
from detseg.runtimes.network import FrameNetwork, as_tensors, fused, read_network
from detseg.runtimes.torch_runtime import choose_device


def frames(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3), np.uint8)


def test_a_runtime_answers_like_the_bare_detector_on_normalised_images(tiny):
    path = tiny()
    card, state = load(path)
    detector = catalog.build("tiny", card.config, 3).eval()
    detector.load_state_dict(state)
    runtime = open_runtime(path, device="cpu", threads=1)
    for count in (1, 3):
        with torch.no_grad():
            wanted = detector.detect(torch.from_numpy(card.preprocess.normalise(frames(count))))
        given = runtime.predict(frames(count))
        assert given.boxes.dtype == given.scores.dtype == np.float32
        np.testing.assert_allclose(given.boxes, wanted.boxes.numpy(), rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(given.scores, wanted.scores.numpy(), rtol=1e-4, atol=1e-5)
    assert (runtime.name, runtime.device, runtime.card) == ("torch", "cpu", card)


def test_one_picture_answers_the_same_alone_and_in_a_batch(tiny):
    runtime = open_runtime(tiny(), device="cpu")
    batch = frames(3)
    together, alone = runtime.predict(batch), runtime.predict(batch[1:2])
    np.testing.assert_allclose(together.boxes[1], alone.boxes[0], rtol=1e-4, atol=1e-4)


def test_an_empty_batch_gives_empty_arrays(tiny):
    given = open_runtime(tiny(), device="cpu").predict(frames(0))
    assert given.boxes.shape[0] == given.scores.shape[0] == 0
    assert given.boxes.shape[2:] == (4,)
    assert given.scores.shape[2:] == (3,)


def test_only_norms_straight_after_their_own_convolution_are_folded(tiny):
    _, network = read_network(tiny())
    twin = fused(network, (48, 64))
    left = {name for name, m in twin.model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert left == {"before", "twice_norm", "late"}
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == 5  # the original is untouched
    given, wanted = (n(torch.from_numpy(frames(2))) for n in (twin, network))
    assert torch.allclose(given[0], wanted[0], rtol=1e-4, atol=1e-3)


class Forked(nn.Module):
    """A convolution whose output is also used before its norm: folding would change the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.norm.running_mean.fill_(3.0)

    def forward(self, given):
        x = self.conv(given.permute(0, 3, 1, 2).float())
        both = self.norm(x) + x
        return both, both


def test_a_network_that_folding_would_change_is_left_alone():
    network = Forked().eval()
    assert fused(network, (8, 8)) is network


def test_weights_that_do_not_fit_their_model_are_named(tiny):
    path = tiny(categories=Categories.from_names(["a", "b"]))
    with pytest.raises(
        WeightsError, match=r"tiny\.safetensors: .*2 of another shape \(head\.bias \(7,\) instead of \(6,\)"
    ):
        open_runtime(path)


@pytest.mark.parametrize(
    ("model", "config", "words"),
    [
        ("yola", {}, "did you mean yolo"),
        ("yolo", {}, "cannot be built"),
        ("yolo", {"anchors": 5}, "cannot be built"),
        ("yolo", {"anchors": [[[1, 2]]], "strides": [8], "backbone": "none"}, "none"),
    ],
)
def test_a_card_whose_model_cannot_be_built_is_told(tiny, model, config, words):
    with pytest.raises(WeightsError, match=words) as error:
        open_runtime(tiny(model=model, config=config))
    assert "tiny.safetensors" in str(error.value)


def test_a_runtime_that_does_not_fit_the_file_is_refused(tiny):
    with pytest.raises(WeightsError, match="detseg export"):
        open_runtime(tiny(), runtime="onnx")
    with pytest.raises(ValueError, match="openvinoo"):
        open_runtime(tiny(), runtime="openvinoo")


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "cpu:1", "cuda:x", "mps:7"])
def test_a_device_that_is_not_there_is_told(device):
    with pytest.raises(DetsegError, match=f"no device '{device}'"):
        choose_device(device)


def test_auto_takes_a_gpu_where_there_is_one():
    assert choose_device("auto") == ("cuda" if torch.cuda.is_available() else choose_device("cpu"))


class Sized(Detector):
    """Answers with what it was given: the sizes as boxes, the sum of each picture's pixels as scores."""

    takes_sizes = True

    def losses(self, images, targets):
        return {}

    def detect(self, images, sizes_hw):
        boxes = torch.cat([torch.zeros_like(sizes_hw), sizes_hw.flip(1)], dim=1)[:, None]
        return RawDetections(boxes, images.sum(dim=(1, 2, 3))[:, None, None])


def test_what_a_frame_does_not_show_is_zero_and_sizes_reach_the_model_that_wants_them():
    preprocess = Preprocess((32, 64), "shorter")
    network = FrameNetwork(Sized(), preprocess)
    given = frames(2, 32, 64)
    sizes = np.array([[32, 50], [20, 64]])
    boxes, scores = network(*as_tensors(given, sizes, "cpu"))
    assert boxes[:, 0].tolist() == [[0, 0, 50, 32], [0, 0, 64, 20]]
    whole = preprocess.normalise(given)
    for i, (h, w) in enumerate(sizes):
        assert scores[i, 0, 0].item() == pytest.approx(whole[i, :, :h, :w].sum(dtype=np.float64), abs=0.1)
    assert network(torch.from_numpy(given))[0][0, 0].tolist() == [0, 0, 64, 32]  # all of it where nothing is said


class TwoStages(Detector):
    """Its second stage takes the best places of its first, which are all but equal: rounding chooses among them."""

    takes_sizes = True

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), FrozenBatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        )
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
        for norm in (self.backbone[1], self.backbone[4], self.second[1]):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)

    def losses(self, images, targets):
        return {}

    def detect(self, images, sizes_hw):
        x = self.backbone(images)
        places = (1e-9 * x.mean(1)).flatten(1).sin().mul(1e12).fmod(1).topk(5).indices
        pooled = x.flatten(2).gather(2, places[:, None].expand(-1, 8, -1))[..., None].expand(-1, -1, -1, 3)
        seen = self.second(pooled).flatten(2).transpose(1, 2)
        return RawDetections(seen[..., :4], seen[..., 4:].sigmoid())


def test_a_model_of_two_stages_is_folded_though_its_choice_turns_on_the_last_digit():
    torch.manual_seed(0)
    network = FrameNetwork(TwoStages(), Preprocess((64, 107), "shorter")).eval()
    twin = fused(network, (64, 64))
    assert sum(isinstance(m, nn.Identity) for m in twin.modules()) == 3
    given = torch.from_numpy(frames(1, 64, 64))
    maps = [n.model.backbone(n.normalised(given)) for n in (network, twin)]
    assert torch.allclose(*maps, rtol=1e-4, atol=1e-4)
    rows = torch.rand(1, 8, 5, 3)
    assert torch.allclose(network.model.second(rows), twin.model.second(rows), rtol=1e-4, atol=1e-4)


def test_a_norm_whose_input_is_read_elsewhere_stays_while_others_are_folded():
    network = nn.Sequential(Permuted(), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), Between()).eval()
    twin = fused(network, (8, 8))
    assert isinstance(twin[2], nn.Identity)
    assert isinstance(twin[3].norm, nn.BatchNorm2d)


class Permuted(nn.Module):
    def forward(self, given):
        return given.permute(0, 3, 1, 2).float()


class Between(nn.Module):
    """The convolution's output leaves the network beside that of its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.norm.running_mean.fill_(3.0)

    def forward(self, x):
        x = self.conv(x)
        return self.norm(x), x
