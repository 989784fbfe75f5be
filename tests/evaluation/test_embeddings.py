import numpy as np
import pytest
import torch
from torch import nn

from ecgcmr.evaluation.embeddings import EmbedOptions, embed, encoder_of


class Source:
    """Twenty items with known signals; every fifth has no ECG."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.ecg = torch.randn(20, 12, 60, generator=generator)
        self.cmr = torch.rand(20, 3, 8, 8, generator=generator)

    def __len__(self):
        return 20

    def batch(self, indices):
        i = torch.as_tensor(np.asarray(indices))
        has = i % 5 != 0
        return {
            "ecg": self.ecg[i],
            "cmr": self.cmr[i],
            "has_ecg": has,
            "has_cmr": torch.ones(len(i), dtype=torch.bool),
            "subject": i + 1000,
            "labels": i[:, None].float(),
            "label_mask": (i % 2 == 0)[:, None],
            "group": torch.zeros(len(i), dtype=torch.long),
        }


class Encoder(nn.Module):
    def __init__(self, size):
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(size, 16), nn.BatchNorm1d(16), nn.Dropout(0.5))

    def forward(self, x):
        return self.net(x)


def test_embed__rows_subjects_and_labels():
    source, encoder = Source(), Encoder(12 * 60)
    found = embed(encoder, source, "ecg", options=EmbedOptions(batch_size=7))
    assert found.values.dtype == np.float32
    assert list(found.indices) == [i for i in range(20) if i % 5]
    assert list(found.subjects) == [1000 + i for i in range(20) if i % 5]
    assert np.isnan(found.labels[0, 0])
    assert found.labels[1, 0] == 2
    with torch.no_grad():
        expected = encoder.eval()(source.ecg[found.indices]).numpy()
    assert found.values == pytest.approx(expected, abs=1e-6)
    assert embed(encoder, source, "ecg", indices=[3, 1]).subjects.tolist() == [1003, 1001]


def test_embed__is_deterministic_and_leaves_the_module_as_it_was():
    source, encoder = Source(), Encoder(12 * 60)
    encoder.train()
    encoder.net[2].eval()  # a frozen norm must stay frozen
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    one = embed(encoder, source)
    two = embed(encoder, source, options=EmbedOptions(batch_size=3))
    assert one.values == pytest.approx(two.values, abs=1e-6)
    assert encoder.training
    assert not encoder.net[2].training
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())


def test_embed__crops_are_averaged():
    source, encoder = Source(), Encoder(12 * 30)
    first = embed(encoder, source, options=EmbedOptions(crop_samples=30)).values
    second = embed(encoder, source, options=EmbedOptions(crop_samples=30, crop_starts=(30,))).values
    both = embed(encoder, source, options=EmbedOptions(crop_samples=30, crop_starts=(0, 30))).values
    assert both == pytest.approx((first + second) / 2, abs=1e-6)
    with pytest.raises(ValueError, match="leave the 60 samples"):
        embed(encoder, source, options=EmbedOptions(crop_samples=30, crop_starts=(40,)))


def test_embed__projection_and_bf16():
    source, encoder = Source(), Encoder(3 * 64)
    head = nn.Linear(16, 4)
    plain = embed({"cmr_encoder": encoder}, source, "cmr", projection=head)
    assert plain.values.shape == (20, 4)
    rough = embed(encoder, source, "cmr", projection=head, options=EmbedOptions(precision="bf16"))
    assert rough.values.dtype == np.float32
    assert rough.values == pytest.approx(plain.values, abs=0.05)


def test_embed__errors():
    source, encoder = Source(), Encoder(12 * 60)
    with pytest.raises(ValueError, match="none of the 2 items has ECG"):
        embed(encoder, source, indices=[0, 5])
    with pytest.raises(ValueError, match="hold no cmr encoder; they hold"):
        encoder_of({"ecg": encoder}, "cmr")
    with pytest.raises(ValueError, match="got int"):
        encoder_of(3, "ecg")
    source.ecg[3] = torch.nan
    with pytest.raises(ValueError, match="not finite, first for item 3"):
        embed(encoder, source)


def test_embed__a_batch_in_which_nobody_has_the_modality_is_skipped():
    source = Source()
    together = embed(Encoder(720), source)
    alone = embed(Encoder(720), source, options=EmbedOptions(batch_size=1))
    assert alone.indices.tolist() == together.indices.tolist() == [i for i in range(20) if i % 5]
    np.testing.assert_allclose(alone.values, together.values, atol=1e-6)
