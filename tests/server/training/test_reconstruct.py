"""The tail that gives a picture back."""

import pytest
import torch

from headwater.server.training.reconstruct import Reconstructor, picture_loss


def test_the_loss_is_nothing_for_the_same_picture_and_more_where_edges_are_lost() -> None:
    wanted = torch.zeros(1, 1, 8, 8)
    wanted[..., 4:] = 200
    assert picture_loss(wanted, wanted) == 0
    darker, smooth = wanted * 0.75, torch.full_like(wanted, 100)
    assert picture_loss(wanted, wanted + 51).item() == pytest.approx(0.2)
    assert picture_loss(smooth, wanted) > picture_loss(darker, wanted) > 0


def test_it_learns_a_picture_from_its_features() -> None:
    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (4, 1, 4, 4)).float().repeat_interleave(4, 2).repeat_interleave(4, 3)
    features = pictures[:, :, ::4, ::4] / 64 - 2
    model = Reconstructor(1, 1, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    first = picture_loss(model(features), pictures).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = picture_loss(model(features), pictures)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss.item() < first / 3


def test_it_starts_as_the_best_linear_map() -> None:
    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    patches = torch.nn.functional.pixel_unshuffle(pictures.double(), 4)  # [40, 48, 2, 2]
    features = torch.einsum("bchw,fc->bfhw", patches - 100, torch.randn(48, 48, dtype=torch.float64)).float()
    model = Reconstructor(48, 3, 2)
    model.start_from(features, pictures)
    with torch.no_grad():
        error = (model(features) - pictures).abs().mean()
    assert error < 10, "mid-grey would be 64 off"
