"""Pictures of single subjects for the report: the ECG, the cine, what the MAE fills in, whom an ECG retrieves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ecgcmr.cohort.dataset import PairedDataset
from ecgcmr.cohort.store import Cohort
from ecgcmr.demo.arms import embed_arm
from ecgcmr.demo.compare import gallery, retrieve_pairs, shared_space
from ecgcmr.demo.context import MAIN, DemoContext
from ecgcmr.evaluation.retrieval import top_matches
from ecgcmr.hub import load_weights
from ecgcmr.models.ecg_mae import EcgDecoder, EcgMae
from ecgcmr.models.ecg_vit import EcgViT
from ecgcmr.report import playing_gallery, playing_heart, rank_histogram, reconstruction_figure
from ecgcmr.report.cine_strip import StripOptions, cine_strip
from ecgcmr.report.ecg_paper import ecg_paper
from ecgcmr.report.page import Figure

FRAMES = ("end-diastole", "mid-systole", "end-systole")
MASK_RATIO = 0.75
N_MATCHES = 5


def subject_figures(context: DemoContext, subject: int) -> list[Figure]:
    """One subject: the ECG on paper and the three frames that the CMR encoder sees."""
    cohort = Cohort.open(context.cohort)
    recording, study = first_row(cohort.recordings, subject), first_row(cohort.studies, subject)
    options = StripOptions(names=FRAMES)
    return [
        ecg_paper(cohort.recording(recording), title="What the ECG encoder sees: ten seconds, twelve leads"),
        cine_strip(
            cohort.cine(study), options, title="What the CMR encoder sees: three frames of a mid short-axis slice"
        ),
    ]


def reconstructions(context: DemoContext, subjects: list[int]) -> list[Figure]:
    """What the masked autoencoder fills in where it saw nothing."""
    weights = load_weights(context.weights("ecg_mae"))
    encoder, decoder = weights.modules["ecg"], weights.modules["ecg_decoder"]
    assert isinstance(encoder, EcgViT), "a masked autoencoder is trained around a vision transformer"
    assert isinstance(decoder, EcgDecoder), "a masked autoencoder has a decoder"
    assert weights.ecg_pipeline is not None, "weights of an ECG encoder hold its pipeline"
    mae = EcgMae(encoder, decoder).eval()
    dataset = PairedDataset(Cohort.open(context.cohort), subjects, weights.ecg_pipeline, None)
    length, patch = mae.encoder.n_samples, mae.encoder.patch
    ecg = dataset.batch(np.arange(len(dataset)))["ecg"][..., :length]
    with torch.inference_mode():
        made, hidden = mae.reconstruct(ecg, MASK_RATIO, torch.Generator().manual_seed(context.seed))
    figures = []
    for row, subject in enumerate(dataset.subjects):
        signals = (ecg[row].numpy(), made[row].numpy())
        masked = hidden[row, :, ::patch].numpy() > 0
        rate = weights.ecg_pipeline.rate_hz
        figures.append(reconstruction_figure(signals, masked, rate, title=f"Held-out subject {subject}"))
    return figures


def rank_figures(context: DemoContext) -> list[Figure]:
    """Histograms of the rank of the own study (or ECG), both ways."""
    names = {"ecg_to_cmr": "ECG to CMR", "cmr_to_ecg": "CMR to ECG"}
    both = retrieve_pairs(context, MAIN)
    return [replace(rank_histogram(one.ranks, one.gallery, names[one.direction]), size="half") for one in both]


def retrieval_examples(context: DemoContext, n: int = 2) -> list[Figure]:
    """Whom the ECGs of some subjects retrieve."""
    ecg, cmr = shared_space(context, MAIN)
    who = gallery(context)
    assert ecg.projection is not None, "an aligned run has projections"
    assert cmr.projection is not None, "an aligned run has projections"
    space = ecg.projection[ecg.rows(who)], cmr.projection[cmr.rows(who)]
    ranks = retrieve_pairs(context, MAIN)[0].ranks
    return [_example(context, who, space, query, ranks) for query in typical_queries(ranks, n)]


def typical_queries(ranks: NDArray[np.float64], n: int) -> list[int]:
    """Not the best cases: the queries that cut the ranks (N,) into n + 1 parts."""
    order = np.argsort(ranks, kind="stable")
    return [int(order[(k + 1) * len(order) // (n + 1)]) for k in range(n)]


def _example(
    context: DemoContext, who: np.ndarray, space: tuple[np.ndarray, np.ndarray], query: int, ranks: np.ndarray
) -> Figure:
    cohort = Cohort.open(context.cohort)
    labels = cohort.labels
    best = top_matches(space[0][query], space[1], N_MATCHES)
    ecg = cohort.recording(first_row(cohort.recordings, int(who[query])))
    hearts = []
    for k in [*best, *([] if query in best else [query])]:
        subject = int(who[k])
        volume, mass = labels.loc[subject, ["LVEDV", "LVM"]].to_numpy(dtype=np.float64)
        notes = [f"LVEDV {volume:.0f} ml", f"LVM {mass:.0f} g"]
        cine = cohort.cine(first_row(cohort.studies, subject), masks=False)
        rank = None if k in best else round(float(ranks[query]))
        hearts.append(playing_heart(cine, notes, own=bool(k == query), rank=rank))
    trace = ecg.samples[ecg.leads.index("II")]
    return playing_gallery(
        hearts, trace, ecg.rate_hz, title=f"Query: the ECG of subject {who[query]}", gallery=len(who)
    )


def first_row(table: pd.DataFrame, subject: int) -> int:
    """Row of the first recording or study of a subject."""
    return int(np.flatnonzero(table["subject"] == subject)[0])


def example_subject(context: DemoContext) -> int:
    """The first held-out subject of the gallery whose LVM is near the median: neither the best nor the worst case."""
    found = embed_arm(context, next(arm for arm in context.arms() if arm.key == MAIN))
    who = gallery(context)
    mass = found.labels[found.rows(who), 3]
    return int(who[np.argmin(np.abs(mass - np.nanmedian(mass)))])
