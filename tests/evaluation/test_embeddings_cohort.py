import numpy as np
import pytest
import torch

from ecgcmr.cohort.dataset import PairedDataset
from ecgcmr.cohort.store import Cohort
from ecgcmr.ecg.preprocessing import named_pipeline
from ecgcmr.evaluation.embeddings import EmbedOptions, embed
from ecgcmr.evaluation.probes import RidgeProbe
from ecgcmr.models.ecg_vit import create_ecg_encoder


def test_embed__a_simulated_cohort_with_the_ecg_transformer(tiny_cohort):
    cohort = Cohort.open(tiny_cohort)
    dataset = PairedDataset(cohort, cohort.subjects["subject"], named_pipeline("highpass"), labels=["LVEDV", "LVM"])
    torch.manual_seed(0)
    encoder = create_ecg_encoder("nano", n_samples=500)
    found = embed(encoder, dataset, "ecg", options=EmbedOptions(batch_size=10, crop_samples=500))
    assert found.values.shape[0] == len(dataset)
    assert np.array_equal(found.subjects, dataset.subjects)
    again = embed(encoder, dataset, "ecg", options=EmbedOptions(batch_size=24, crop_samples=500))
    assert found.values == pytest.approx(again.values, abs=1e-4)
    assert np.ptp(found.values, axis=0).max() > 0
    probe = RidgeProbe().fit(found.values, found.labels, found.subjects, dataset.label_names)
    assert np.isfinite(probe.predict(found.values)).all()
    assert found.labels[:, 0].mean() > 40  # LVEDV in ml, not standardized
