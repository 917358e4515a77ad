"""Models built by the original's arguments."""

import pytest
import torch

from nemo_ds2_adapters import count_parameters, forward_both, list_adapters
from nemo_ds2_adapters.compat import freeze_base_model, unfreeze_base_model
from nemo_ds2_adapters.errors import InputError


def test_arguments_arrive(build, outputs) -> None:
    model = build(num_rnn_layers=2, rnn_hidden_dim=6)
    assert (len(model.encoder.layers), model.encoder.layers[0].output_size) == (2, 12)  # directions concatenated
    assert model.cfg.preprocessor.features == 16 and not list_adapters(model)
    assert outputs(model).shape[-1] == 29
    assert build(bidirectional=False, rnn_type="lstm").encoder.layers[0].output_size == 4
    model = build(num_classes=4, vocabulary=["가", "나", " "])
    assert list(model.decoder.vocabulary) == ["가", "나", " "] and outputs(model).shape[-1] == 4


def test_with_an_adapter(build, batch, outputs) -> None:
    model, plain = build(use_adapter=True), build()
    assert list_adapters(model) == ["default"]
    head = model.decoder.adapter_layer["default"]
    shapes = [list(weight.shape) for weight in head.state_dict().values() if weight.ndim == 2]
    assert shapes == [[5, 8], [3, 5], [29, 3]]
    assert "Linear(in_features=8, out_features=5" in str(head)
    with torch.no_grad():
        base, personal, lengths = forward_both(model, batch["input_signal"], batch["input_signal_length"])
    assert torch.equal(base, outputs(plain)) and torch.equal(personal, outputs(model))
    assert not torch.allclose(base, personal) and len(lengths) == 3


def test_freezing_and_counting(build) -> None:
    model = build(use_adapter=True)
    adapter = 8 * 5 + 5 + 5 * 3 + 3 + 3 * 29 + 29
    everything = count_parameters(model)
    assert everything["adapter"] == adapter and everything["total"] == everything["base"] + adapter
    freeze_base_model(model)
    assert count_parameters(model, trainable_only=True) == {"total": adapter, "base": 0, "adapter": adapter}
    assert count_parameters(model) == everything
    unfreeze_base_model(model)
    assert count_parameters(model, trainable_only=True) == everything


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 2000}, "give vocabulary= with 1999 units"),
        ({"activation": "softsign"}, "softsign"),
        ({"rnn_type": "gur"}, "gur"),
        ({"num_rnn_layers": 0}, "n_layers=0"),
        ({"use_adapter": True, "adapter_hidden_dims": []}, "expected a list of 1 to 3 sizes"),
        ({"use_adapter": True, "adapter_hidden_dims": [8, 8, 8, 8]}, "expected a list of 1 to 3 sizes"),
    ],
)
def test_wrong_arguments(build, arguments, message) -> None:
    with pytest.raises(InputError, match=message):
        build(**arguments)
