"""Explanations: closed forms, equality with an independent computation, and what is refused."""

import builtins
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

import ecgcmr
from ecgcmr.cohort.store import Cohort
from ecgcmr.ecg.leads import LEADS
from ecgcmr.evaluation.explain import (
    Target,
    attention_rollout,
    delineate,
    explain,
    grad_cam,
    healthy_recordings,
    integrated_gradients,
    load_explanation,
    localisation,
    occlusion,
    prototype_target,
    rollout,
)
from ecgcmr.evaluation.explain.waves import wave_masks
from ecgcmr.evaluation.neighbours import fit_prototypes
from ecgcmr.hub.model import LoadedModel
from ecgcmr.models.attention_maps import attention_maps, pooling_weights
from ecgcmr.models.blocks import Attention
from ecgcmr.models.build import build_module

needs_captum = pytest.mark.skipif(find_spec("captum") is None, reason="captum, of the extra explain, is not installed")


class LinearEcg(nn.Module):
    """An encoder whose embedding is a weighted sum, so that every method has a closed form."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.config = {"n_samples": 200}

    def forward(self, x):
        return (x * self.weight).sum(dim=(1, 2))[:, None]


@pytest.fixture
def linear(small_model):
    """The small model with a linear encoder that ignores leads V1 to V6, and the target that reads it."""
    weight = torch.randn(12, 200, generator=torch.Generator().manual_seed(4))
    weight[6:] = 0
    weights = small_model["both"].weights
    model = LoadedModel(replace(weights, modules={**weights.modules, "ecg": LinearEcg(weight)}))
    return model, Target("sum", "mV", "ecg", lambda e: e[:, 0]), weight


@pytest.fixture(scope="module")
def pair(tiny_cohort):
    cohort = Cohort.open(tiny_cohort)
    return cohort.recording(3), cohort.cine(3)


def prepared(model, recording):
    from ecgcmr.evaluation.explain.prepare import prepare

    return prepare(model, recording).x[0]


@needs_captum
def test_ig__of_a_linear_model_is_weight_times_input_minus_baseline(linear, pair):
    model, target, weight = linear
    found = integrated_gradients(model, pair[0], target)
    assert np.allclose(found.values, (weight * prepared(model, pair[0])).numpy(), atol=1e-5)
    assert found.values.sum() == pytest.approx(found.output - found.baseline_output, abs=1e-4)
    assert found.baseline_output == 0


def test_occlusion__of_a_lead_that_the_model_ignores_is_zero(linear, pair):
    model, target, weight = linear
    x = prepared(model, pair[0])
    by_lead = occlusion(model, pair[0], target, by="lead").by_lead()
    assert (by_lead["V1":"V6"] == 0).all()
    assert np.allclose(by_lead, (weight * x).sum(dim=1), atol=1e-4)
    windows = occlusion(model, pair[0], target, by="window", window_ms=250)
    assert np.allclose(windows.by_lead(), (weight * x).sum(dim=1), atol=1e-3)
    windows = occlusion(model, pair[0], target, by="window", window_ms=250)
    exact = (weight * x).reshape(12, 8, 25).sum(dim=2).numpy()
    assert np.allclose(windows.values[:, ::25], exact, atol=1e-4)
    assert (windows.values[6:] == 0).all()


def test_occlusion__of_waves_flattens_them_in_all_beats(linear, pair):
    pytest.importorskip("neurokit2")
    model, target, weight = linear
    found = occlusion(model, pair[0], target, by="wave")
    x = prepared(model, pair[0]).numpy().astype(float)
    masks = wave_masks(delineate(pair[0]), 0.0, 200, 100.0)
    expected = x[1].copy()
    for first, last in masks["QRS"]:
        before, after = max(first - 1, 0), min(last, 199)
        expected[first:last] = np.interp(np.arange(first, last), [before, after], x[1][[before, after]])
    effect = (weight[1].numpy() * (x[1] - expected)).sum()
    table = found.effects()
    assert table.loc["II", "QRS"] == pytest.approx(effect, abs=1e-3)
    # a linear model: taking a wave from all leads is the sum of taking it from each
    assert np.allclose(table.loc["all"], table.loc[list(LEADS)].sum(), atol=1e-3)
    assert set(table.columns) <= {"P", "QRS", "ST", "T"}


def test_occlusion__of_an_image_patch(small_model, pair):
    model = small_model["both"]
    encoder = model.weights.modules["cmr"]
    target = Target("first", "", "cmr", lambda e: e[:, 0])
    found = occlusion(model, pair[1], target, patches=4)
    x = torch.from_numpy(model.weights.cmr_pipeline(pair[1])).float()[None] / 255
    changed = x.clone()
    changed[..., 8:16, 16:24] = x.mean()
    with torch.no_grad():
        effect = float(encoder(x)[0, 0] - encoder(changed)[0, 0])
    assert found.values[10, 20] == pytest.approx(effect, abs=1e-5)
    assert found.values.shape == (32, 32)
    assert len(found.regions) == 16


@pytest.mark.parametrize("kind", ["ecg_vit", "ecg_st_vit", "ecg_wav2vec", "cine_transformer"])
def test_attention_maps__equal_the_true_attention(kind):
    torch.manual_seed(0)
    if kind == "cine_transformer":
        encoder = build_module({"kind": "cmr_encoder", "name": kind, "cine": {"width": 32, "heads": 4, "stem": 8}})
        x = torch.rand(2, 3, 4, 32, 32)
    else:
        sizes = {"width": 32, "depth": 2, "heads": 4, "n_samples": 400}
        more = {"ecg_wav2vec": {"hidden": 32, "pos_groups": 4, "conv_layers": [(16, 4, 4)] * 2}}
        encoder = build_module({"kind": kind, **sizes, **more.get(kind, {"patch": 100})})
        x = torch.randn(2, 12, 400)
    encoder.eval()
    seen = []
    for module in encoder.modules():
        if isinstance(module, Attention):
            module.register_forward_hook(lambda m, given, made: seen.append((m, given[0], made)))
    maps = attention_maps(encoder, x)
    assert len(maps) == len(seen) > 0
    for weights, (module, given, made) in zip(maps, seen, strict=True):
        assert torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-6)
        b, n, d = given.shape
        v = module.qkv(given).view(b, n, 3, module.heads, d // module.heads).permute(2, 0, 3, 1, 4)[2]
        again = module.proj((weights @ v).transpose(1, 2).reshape(b, n, d))
        assert torch.allclose(again, made, atol=1e-6)


def test_rollout__rows_sum_to_one_and_uniform_attention_stays_uniform():
    maps = [torch.rand(1, 2, 7, 7).softmax(-1) for _ in range(3)]
    flow = rollout(maps)
    assert torch.allclose(flow.sum(-1), torch.ones((), dtype=torch.float64))
    even = rollout([torch.full((1, 1, 4, 4), 0.25)])
    assert torch.allclose(even[0], torch.eye(4, dtype=torch.float64) / 2 + 0.125)
    with pytest.raises(ValueError, match="at least one block"):
        rollout([])


@pytest.mark.parametrize("pool", ["mean", "cls", "attention"])
def test_rollout__shares_of_patches_sum_to_one(small_model, pair, pool):
    torch.manual_seed(1)
    encoder = build_module({**small_model["both"].config["modules"]["ecg"], "pool": pool}).eval()
    weights = small_model["both"].weights
    model = LoadedModel(replace(weights, modules={**weights.modules, "ecg": encoder}))
    found = attention_rollout(model, pair[0])
    assert found.values.shape == (12, 4)
    assert found.values.sum() == pytest.approx(1)
    assert found.values.min() >= 0
    assert found.rate_hz == 2.0
    if pool == "attention":
        tokens = encoder.forward_tokens(prepared(model, pair[0])[None])
        assert pooling_weights(encoder.attention_pool, tokens, encoder.prefix).sum().item() == pytest.approx(1)


@needs_captum
def test_ig__of_the_head_is_complete_and_repeats(small_model, pair):
    for target, unit in (("LVM", "g"), ("mi", "log-odds")):
        found = explain(small_model["both"], pair[0], target)
        assert found.unit == unit
        gap = abs(found.values.sum() - (found.output - found.baseline_output))
        assert gap == pytest.approx(found.settings["gap"], abs=1e-9)
        assert gap <= found.settings["tolerance"]
        again = explain(small_model["both"], pair[0], target)
        assert np.array_equal(found.values, again.values)
    predicted = small_model["both"].predict(pair[0])
    mi = explain(small_model["both"], pair[0], "mi", "occlusion", by="lead")
    assert 1 / (1 + np.exp(-mi.output)) == pytest.approx(float(predicted["mi"][0]), abs=1e-5)
    lvm = explain(small_model["both"], pair[0], "LVM", "occlusion", by="lead")
    assert lvm.output == pytest.approx(float(predicted["LVM"][0]), rel=1e-5)


@needs_captum
def test_grad_cam__equals_the_formula(small_model, pair):
    model = small_model["both"]
    found = grad_cam(model, pair[1], pair[0])
    encoder = model.weights.modules["cmr"]
    stage = encoder.backbone.get_submodule(encoder.backbone.feature_info[-1]["module"])
    kept = []
    hook = stage.register_forward_hook(lambda m, given, made: kept.append(made))
    x = torch.from_numpy(model.weights.cmr_pipeline(pair[1])).float()[None] / 255
    embedding = encoder(x)
    hook.remove()
    ecg = torch.from_numpy(model.project(model.embed(pair[0])))[0]
    score = torch.nn.functional.normalize(model.weights.modules["cmr_projection"](embedding), dim=-1)[0] @ ecg
    assert found.output == pytest.approx(float(score.detach()), abs=1e-5)
    gradient = torch.autograd.grad(score, kept[0])[0]
    cam = (gradient.mean(dim=(2, 3), keepdim=True) * kept[0]).sum(1, keepdim=True).relu().detach()
    large = torch.nn.functional.interpolate(cam, size=(32, 32), mode="bilinear")[0, 0]
    if large.max() > 0:
        large = large / large.max()
    assert np.allclose(found.values, large.numpy(), atol=1e-4)


def test_localisation__equals_a_loop_and_pairs_have_four_axes(small_model, pair):
    model = small_model["both"]
    recording, cine = pair
    modules = model.weights.modules
    plain = localisation(model, recording, cine, "ecg", upsample=1, temperature=1.0)
    tokens = modules["ecg"].forward_tokens(prepared(model, recording)[None])[0, 1:]
    whole = torch.from_numpy(model.project(model.embed_cmr(cine), "cmr"))[0]
    for place in (0, 5, 47):
        part = torch.nn.functional.normalize(modules["ecg_projection"](tokens[place][None]), dim=-1)[0]
        assert plain.values.ravel()[place] == pytest.approx(float((part @ whole).detach()), abs=1e-5)
    twice = localisation(model, recording, cine, "ecg")
    assert twice.values.shape == (12, 8)
    assert twice.rate_hz == 4.0
    image = localisation(model, recording, cine, "cmr")
    pairs = localisation(model, recording, cine, "pairs", softmax=True)
    assert pairs.values.shape == twice.values.shape + image.values.shape
    assert pairs.values.sum() == pytest.approx(1)
    assert pairs.modality == "both"
    # swapping the arguments of the front door is understood
    front = explain(model, cine, recording, "localisation", which="cmr")
    assert np.array_equal(front.values, image.values)
    with pytest.raises(ValueError, match="no leads"):
        image.by_lead()


@needs_captum
def test_targets__similarity_and_prototypes(small_model, pair):
    model = small_model["both"]
    recording, cine = pair
    cosine = model.project(model.embed(recording))[0] @ model.project(model.embed_cmr(cine), "cmr")[0]
    assert explain(model, recording, cine).output == pytest.approx(float(cosine), abs=1e-5)
    assert explain(model, cine, recording).output == pytest.approx(float(cosine), abs=1e-5)
    z = np.random.default_rng(0).normal(size=(20, 8))
    made = fit_prototypes(z, np.arange(20) % 2)
    target = prototype_target(model, made, "1", "ecg")
    found = explain(model, recording, target, "occlusion", by="lead")
    mine = made.cosines(model.project(model.embed(recording)))[0]
    assert found.output == pytest.approx(mine[1] - mine[0], abs=1e-5)
    with pytest.raises(ValueError, match="no prototype '2'; there are 0, 1"):
        prototype_target(model, made, "2")
    with pytest.raises(ValueError, match="reads the ECG embedding, but a cine was given"):
        explain(model, cine, target, "occlusion")


def test_explanation__survives_the_disk(small_model, pair, tmp_path):
    for found in (
        explain(small_model["both"], pair[0], "mi", "occlusion", by="lead"),
        explain(small_model["both"], pair[1], pair[0], "occlusion", patches=4),
    ):
        again = load_explanation(found.save(tmp_path / "e.npz"))
        assert np.array_equal(again.values, found.values)
        assert again.regions == found.regions
        assert again.settings == found.settings
        assert (again.axes, again.leads, again.modality) == (found.axes, found.leads, found.modality)
    with pytest.raises(ValueError, match=r"ends in \.npz"):
        found.save(tmp_path / "e.csv")
    np.savez(tmp_path / "x.npz", about=np.array("{}"), values=np.zeros(2))
    with pytest.raises(ValueError, match="not an explanation"):
        load_explanation(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        ("ecg", {"target": "LVX"}, r"no output 'LVX'; choose one of LVM, mi; or a cine"),
        ("ecg", {}, "which output shall be explained"),
        ("ecg", {"target": "embedding_norm"}, "refused: the embedding ends in a layer norm"),
        ("ecg", {"target": "mi", "method": "lime"}, "unknown method 'lime'; known: ig"),
        ("ecg", {"target": "mi", "colour": 1}, "unexpected keyword argument 'colour'"),
        ("ecg", {"target": "mi", "method": "rollout"}, "about no target"),
        ("ecg", {"target": "mi", "method": "gradcam"}, "convolutional image towers"),
        ("ecg", {"target": "mi", "method": "occlusion", "by": "patch"}, "expected lead or window or wave"),
        ("ecg", {"target": "mi", "method": "occlusion", "window_ms": 1}, "expected 10 to 2000 ms"),
        ("ecg", {"target": "mi", "steps": 1}, "steps is 1"),
        ("cmr", {"target": "mi"}, "the head reads ECG embeddings"),
        ("cmr", {"target": "ecg", "method": "gradcam", "layer": "layer9"}, "no stage 'layer9'; choose one of"),
        ("cmr", {"target": "ecg", "method": "occlusion", "patches": 99}, "expected 2 to 32"),
        ("cmr", {"method": "rollout"}, "tokens that are patches of one lead"),
        ("list", {"target": "mi"}, "about one recording"),
        ("short", {"target": "mi"}, r"lasts 1 s, the model reads 2 s"),
        ("eleven", {"target": "mi"}, "lacks V6"),
        ("flat", {"target": "mi", "method": "occlusion", "by": "wave"}, "no beats found in lead II"),
        ("noise", {"target": "mi", "method": "occlusion", "by": "wave"}, "no beats found in lead II"),
        ("ecg", {"target": "mi", "method": "occlusion", "by": "wave", "delineation_lead": "V9"}, "lead V9 is to be"),
    ],
)
def test_explain__bad_input(small_model, pair, what, options, message):
    if options.get("by") == "wave":
        pytest.importorskip("neurokit2")
    recording, cine = pair
    shape = recording.samples.shape
    rng = np.random.default_rng(0)
    items = {
        "ecg": recording,
        "cmr": cine,
        "list": [recording, recording],
        "short": replace(recording, samples=recording.samples[:, :500]),
        "eleven": replace(recording, samples=recording.samples[:11], leads=recording.leads[:11]),
        "flat": replace(recording, samples=np.zeros(shape, np.float32)),
        "noise": replace(recording, samples=rng.choice([0.0, 1e-6], shape).astype(np.float32).cumsum(axis=1) * 0 + 0.1),
    }
    if options.get("target") == "ecg":
        options = {**options, "target": recording}
    with pytest.raises(ValueError, match=message):
        explain(small_model["both"], items[what], **options)


def test_explain__without_a_cmr_tower(small_model, pair):
    model = small_model["ecg_only"]
    with pytest.raises(ValueError, match="ecg_only: these weights have no CMR tower; they have ecg, head"):
        explain(model, pair[0], pair[1])
    with pytest.raises(ValueError, match="no CMR tower"):
        explain(model, pair[1], pair[0])
    assert explain(model, pair[0], "mi", "occlusion", by="lead").values.shape == (12, 200)


@pytest.mark.parametrize(("missing", "options"), [("captum", {}), ("neurokit2", {"method": "occlusion", "by": "wave"})])
def test_explain__names_the_extra_that_is_absent(small_model, pair, monkeypatch, missing, options):
    from ecgcmr.evaluation.explain import optional

    def absent(name):
        if name.split(".")[0] == missing:
            raise ImportError(name)
        return builtins.__import__(name)

    monkeypatch.setattr(optional, "import_module", absent)
    with pytest.raises(ValueError, match=rf"needs {missing}, which is not installed: pip install 'ecgcmr\[explain\]'"):
        explain(small_model["both"], pair[0], "mi", **options)


def test_delineate__agrees_with_the_simulator(tiny_cohort):
    pytest.importorskip("neurokit2")
    cohort = Cohort.open(tiny_cohort)
    quiet = [s for s in range(12) if cohort.labels.loc[s, ["af", "lbbb", "rbbb"]].sum() == 0]
    errors = []
    for subject in quiet[:6]:
        found = delineate(cohort.recording(subject))
        peaks = np.array(cohort.truth.loc[subject, "ecg_r_peaks"]) / 500
        assert len(found["QRS"]) >= len(peaks) - 2
        inside = [any(a <= peak <= b for peak in peaks) for a, b in found["QRS"]]
        assert np.mean(inside) >= 0.9
        length = np.median([b - a for a, b in found["QRS"]]) * 1000
        errors.append(length - cohort.truth.loc[subject, "ecg_qrs_ms"])
        for p, qrs in zip(found["P"], found["QRS"], strict=False):
            assert p[0] < qrs[1]
    assert abs(np.median(errors)) < 60


def test_explain__takes_an_array_that_is_declared(small_model, pair):
    how = {"target": "mi", "method": "occlusion", "by": "lead"}
    array = pair[0].samples * 1000
    found = explain(small_model["both"], array, rate_hz=500, leads=LEADS, unit="uV", **how)
    assert np.allclose(found.values, explain(small_model["both"], pair[0], **how).values, atol=1e-5)
    with pytest.raises(ValueError, match="an array does not say what it holds"):
        explain(small_model["both"], array, **how)


def test_explain__is_a_public_name():
    assert ecgcmr.explain is explain
    assert ecgcmr.Gallery.__name__ == "Gallery"


@needs_captum
def test_references__take_the_place_of_a_flat_line(linear, pair, tiny_cohort):
    model, target, weight = linear
    cohort = Cohort.open(tiny_cohort)
    references = [cohort.recording(i) for i in (0, 5, 7)]
    x = prepared(model, pair[0]).double()
    mean = torch.stack([prepared(model, one) for one in references]).double().mean(dim=0)
    expected = (weight.double() * (x - mean)).numpy()
    found = integrated_gradients(model, pair[0], target, references=references)
    assert np.allclose(found.values, expected, atol=1e-4)
    assert found.settings["baseline"] == "3 references"
    by_lead = occlusion(model, pair[0], target, by="lead", references=references).by_lead()
    assert np.allclose(by_lead, expected.sum(axis=1), atol=1e-3)
    own = occlusion(model, pair[0], target, by="lead", references=[pair[0]])
    assert np.allclose(own.by_lead(), 0, atol=1e-5)
    with pytest.raises(ValueError, match="a wave is flattened, not replaced"):
        occlusion(model, pair[0], target, by="wave", references=references)
    with pytest.raises(ValueError, match="must be of the same modality"):
        occlusion(model, pair[0], target, by="lead", references=[pair[1]])


def test_references__of_images_and_healthy_subjects(small_model, pair, tiny_cohort):
    cohort = Cohort.open(tiny_cohort)
    target = Target("first", "", "cmr", lambda e: e[:, 0])
    own = occlusion(small_model["both"], pair[1], target, patches=4, references=[pair[1]])
    assert np.allclose(own.values, 0, atol=1e-5)
    binary = [name for name, spec in cohort.label_specs.items() if spec.kind == "binary"]
    healthy = cohort.labels.index[(cohort.labels[binary] == 0).all(axis=1)]
    found = healthy_recordings(cohort, 3, split=None)
    assert np.array_equal(found[1].samples, cohort.recording(int(healthy[1])).samples)
    assert len(healthy_recordings(cohort, 99, split=None)) == len(healthy)
    with pytest.raises(ValueError, match="is known to be without any diagnosis"):
        healthy_recordings(cohort, 0)
