import pytest
import torch
import torch.nn.functional as F

from mim.models import MaskedImageModel, cpu_kernels, create_encoder
from mim.models.cpu_kernels import quick_on_cpu

CPU = torch.device("cpu")


def gradients(function, *inputs):
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    output = function(*leaves)
    torch.manual_seed(1)
    return output.detach(), *torch.autograd.grad(output, leaves, torch.randn(output.shape).to(output.dtype))


@pytest.mark.parametrize("shape", [(7, 12), (2, 5, 12), (1, 1, 12)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_linear_map_and_its_gradients_are_those_of_torch(shape, with_bias):
    torch.manual_seed(0)
    inputs = [torch.randn(shape), torch.randn(20, 12), *([torch.randn(20)] if with_bias else [])]
    expected = gradients(F.linear, *inputs)
    with quick_on_cpu(CPU):
        got = gradients(F.linear, *inputs)
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_a_linear_map_of_parts_of_tensors_and_of_nothing():
    torch.manual_seed(0)
    x, weight = torch.randn(3, 9, 24), torch.randn(40, 12)
    with quick_on_cpu(CPU):
        torch.testing.assert_close(F.linear(x[:, 4:, ::2], weight[8:]), x[:, 4:, ::2] @ weight[8:].T)
        assert F.linear(x[:, 9:, :12], weight).shape == (3, 0, 40)


def test_gradients_go_only_where_they_are_wanted():
    x, weight = torch.randn(3, 4), torch.randn(5, 4, requires_grad=True)
    with quick_on_cpu(CPU):
        F.linear(x, weight).sum().backward()
        with torch.no_grad():
            assert not F.linear(x, weight).requires_grad
    assert x.grad is None
    torch.testing.assert_close(weight.grad, x.sum(0).expand(5, -1))


@pytest.mark.parametrize("biased", [False, True])
def test_attention_in_bfloat16_is_as_near_to_the_truth_as_bfloat16_can_be(biased):
    torch.manual_seed(0)
    inputs = [torch.randn(2, 4, rows, 16) for rows in (9, 30, 30)]
    bias = torch.zeros(2, 1, 1, 30).masked_fill(torch.rand(2, 1, 1, 30) < 0.3, -torch.inf) if biased else None
    rounded = [tensor.bfloat16() for tensor in inputs]

    def attend(query, key, value):
        attn_mask = None if bias is None else bias.to(query.dtype)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask)

    truth = gradients(attend, *(tensor.float() for tensor in rounded))
    with quick_on_cpu(CPU):
        got = gradients(attend, *rounded)
    for mine, right in zip(got, truth, strict=True):
        assert mine.dtype == torch.bfloat16
        assert (mine.float() - right).norm() < 0.03 * right.norm()


def test_what_it_is_not_for_is_left_to_torch(monkeypatch):
    torch.manual_seed(0)
    queries = [torch.randn(1, 2, 8, 4, dtype=torch.bfloat16) for _ in range(3)]
    plain = F.scaled_dot_product_attention(*queries)
    with quick_on_cpu(CPU):
        assert torch.equal(F.scaled_dot_product_attention(*queries), plain), "no gradient is needed"
        queries[0].requires_grad_()
        assert not torch.equal(F.scaled_dot_product_attention(*queries), plain)
        monkeypatch.setattr(cpu_kernels, "MOST_LOGITS", 2 * 8 * 8 - 1)
        assert torch.equal(F.scaled_dot_product_attention(*queries), plain), "the matrix of logits is too large"
        with torch.autocast("cpu", torch.bfloat16):
            assert F.linear(torch.randn(2, 4), torch.randn(3, 4)).dtype == torch.bfloat16


def test_a_whole_model_has_the_same_loss_and_gradient_as_without():
    torch.manual_seed(0)
    encoder = create_encoder("test_vit", (64, 96))
    model = MaskedImageModel(encoder)
    visible = (torch.rand(2, 24).argsort(1) < 6).view(2, *encoder.grid())
    image = torch.rand(2, 1, 64, 96)

    def step(forward):
        model.zero_grad()
        values = forward()
        values.square().mean().backward()
        return [
            values.detach(),
            *(parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None),
        ]

    def quickly():
        with quick_on_cpu(image.device):
            return model.decoder(model.encoder(image, visible), visible).values

    quick = step(quickly)
    plain = step(lambda: model.decoder(model.encoder(image, visible), visible).values)
    for mine, theirs in zip(quick, plain, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_a_boolean_mask_of_attention_is_left_to_torch():
    query, key, value = (torch.rand(2, 3, 5, 8, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    mask = torch.eye(5, dtype=torch.bool)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    with quick_on_cpu(CPU):
        assert torch.equal(
            torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask), expected
        )
        assert torch.equal(torch.nn.functional.scaled_dot_product_attention(query, key, value, mask), expected)
