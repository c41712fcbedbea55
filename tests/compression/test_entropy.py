"""The float entropy model: probabilities, rate, gains, straight-through rounding."""

import torch

from headwater.compression.entropy import FactorizedPrior, GainUnit, round_straight_through


def test_probabilities_are_those_of_a_distribution() -> None:
    table = FactorizedPrior(2, 3).probabilities(-200, 200)
    assert table.shape == (2, 3, 401)
    assert (table >= 0).all()
    torch.testing.assert_close(table.sum(dim=2), torch.ones(2, 3, dtype=torch.float64), rtol=0, atol=1e-6)


def test_the_rate_is_what_the_probabilities_say() -> None:
    torch.manual_seed(0)
    prior = FactorizedPrior(1, 1)
    prior.log_scale.data.fill_(2.0)  # so broad that noise of one step hardly matters
    x = torch.full((4, 1, 50, 50), 5.0)
    bits = prior.bits(x, torch.zeros(4, dtype=torch.long))
    wanted = -prior.probabilities(5, 5)[0, 0, 0].log2() * 2500
    assert bits.shape == (4, 1)
    torch.testing.assert_close(bits.double().mean(), wanted, rtol=0.01, atol=0)


def test_training_the_prior_brings_the_rate_to_the_entropy() -> None:
    torch.manual_seed(0)
    prior = FactorizedPrior(1, 1)
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.05)
    mode = torch.zeros(8, dtype=torch.long)
    for _ in range(300):
        optimizer.zero_grad()
        loss = prior.bits(torch.randn(8, 1, 16, 16) * 4, mode).mean() / 256
        loss.backward()
        optimizer.step()
    assert abs(loss.item() - 4.05) < 0.15, "0.5 log2(2 pi e) + log2(4) = 4.05 bits a symbol"


def test_gain_and_step_start_as_inverses_of_each_mode() -> None:
    unit = GainUnit([2.0, 8.0], 3)
    latent = torch.randn(2, 3, 4, 4)
    mode = torch.tensor([1, 0])
    scaled = unit.scale(latent, mode)
    torch.testing.assert_close(scaled[0], latent[0] * 8)
    torch.testing.assert_close(unit.unscale(scaled, mode), latent)


def test_rounding_rounds_and_passes_the_gradient() -> None:
    x = torch.tensor([0.4, -1.6], requires_grad=True)
    y = round_straight_through(x)
    assert y.tolist() == [0.0, -2.0]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0]
