"""The loss: what it counts, that it equals the published one, and what it holds."""

from __future__ import annotations

import pytest
import torch
from monai.losses import DiceCELoss
from torch import nn

from inference.structures import CLASS_COUNT
from training import loss
from training.loss import dice_cross_entropy, head_loss


def test_the_loss_falls_to_nothing_for_a_perfect_answer_and_counts_classes_by_the_balance():
    target = torch.tensor([0] * 90 + [3] * 10)
    right = nn.functional.one_hot(target, 5) * 30.0
    assert dice_cross_entropy(right, target) < 1e-3

    misses_few = right.clone()
    misses_few[90:] = right[0]
    plain = dice_cross_entropy(misses_few, target)
    balanced = dice_cross_entropy(misses_few, target, balance=1.0)
    assert balanced > 3 * plain


@pytest.fixture
def question() -> tuple[nn.Conv3d, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    head = nn.Conv3d(8, CLASS_COUNT, 1)
    features = torch.randn(6 * 7 * 8, 8, requires_grad=True)
    return head, features, torch.randint(0, 30, (len(features),))


def test_with_absent_classes_it_is_the_published_loss_and_gradient(question):
    head, features, target = question
    shape = (1, 6, 7, 8)
    volume = features.T.reshape(8, *shape[1:])[None]
    published = DiceCELoss(to_onehot_y=True, softmax=True)
    expected = published(head(volume), target.reshape(1, *shape))
    expected_grad = torch.autograd.grad(expected, features)[0]

    ours = head_loss(head, features, target, 0.0, absent_classes=True)

    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(torch.autograd.grad(ours, features)[0], expected_grad)


@pytest.mark.parametrize("balance", [0.0, 0.5])
def test_chunks_change_nothing(question, monkeypatch, balance):
    head, features, target = question
    parameters = [features, head.weight, head.bias]
    whole = head_loss(head, features, target, balance, absent_classes=False)
    gradients = torch.autograd.grad(whole, parameters)

    monkeypatch.setattr(loss, "CHUNK_VOXELS", 100)
    parts = head_loss(head, features, target, balance, absent_classes=False)

    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts, parameters), gradients)


def test_no_answer_with_105_channels_outlives_its_chunk(question, monkeypatch):
    head, features, target = question
    monkeypatch.setattr(loss, "CHUNK_VOXELS", 64)
    kept: list[int] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        head_loss(head, features, target, 0.0, absent_classes=False)

    assert max(kept) <= 64 * 8 + head.weight.numel()
