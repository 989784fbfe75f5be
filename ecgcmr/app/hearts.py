"""The hearts that the app compares with: a cohort, and its studies in the model's shared space."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ecgcmr.app.references import References
from ecgcmr.cohort.simulate import Progress, simulate_cohort
from ecgcmr.cohort.store import Cohort
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.evaluation.explain.references import healthy_recordings
from ecgcmr.evaluation.neighbours.build import build_gallery, cohort_key
from ecgcmr.evaluation.neighbours.gallery import Gallery
from ecgcmr.hub.source import cache_folder

if TYPE_CHECKING:
    from ecgcmr.hub.model import LoadedModel

N_SIMULATED, SEED = 600, 20260  # the seed belongs to no cohort that released weights were trained on
EXAMPLES = ("mi", "hcm", "dcm", "lbbb", "hhd")


@dataclass(frozen=True)
class Hearts:
    """A cohort with what is looked up in it.

    Attributes:
        cohort: The cohort.
        gallery: Its studies in the shared space; None for a model without a CMR encoder.
    """

    cohort: Cohort
    gallery: Gallery | None

    @cached_property
    def references(self) -> References:
        """Reference ranges of phenotypes."""
        return References(self.cohort)

    @cached_property
    def healthy(self) -> list[EcgRecording]:
        """ECGs of up to 16 subjects without a diagnosis, which explanations put in place of what they take away."""
        return healthy_recordings(self.cohort, split=None)

    @property
    def simulated(self) -> bool:
        """Whether these are simulated hearts."""
        return "simulated" in str(self.cohort.schema.provenance)

    def examples(self) -> dict[str, int]:
        """Recordings to try: name -> row of the cohort's recordings; one without a diagnosis, and one of each kind."""
        labels, owners = self.cohort.labels, self.cohort.recordings["subject"].to_numpy()
        binary = [name for name, spec in self.cohort.label_specs.items() if spec.kind == "binary"]
        found: dict[str, int] = {}
        alone = (labels[binary] == 0).all(axis=1) if binary else labels.index >= 0
        wanted = {"no diagnosis": labels.index[alone]}
        wanted |= {name: labels.index[labels[name] == 1] for name in EXAMPLES if name in binary}
        for name, subjects in wanted.items():
            rows = np.flatnonzero(np.isin(owners, subjects))
            rows = rows[~np.isin(rows, list(found.values()))]
            if len(rows):
                found[name] = int(rows[0])
        return found

    def truth(self, subject: int) -> dict[str, float]:
        """What is known of a subject of the cohort: label -> value, without what is missing."""
        names = list(self.cohort.labels.columns)
        values = self.cohort.labels.loc[subject].to_numpy(dtype=np.float64)
        return {name: float(value) for name, value in zip(names, values, strict=True) if np.isfinite(value)}

    def age_and_sex(self, subject: int) -> tuple[float | None, str | None]:
        """Age [years] and sex of a subject, None where unknown."""
        known = self.cohort.subjects.set_index("subject").loc[[subject]]
        ages = known["age_years"].dropna().to_numpy(dtype=np.float64) if "age_years" in known else np.array([])
        sexes = known["sex"].dropna().astype(str).to_list() if "sex" in known else []
        return (float(ages[0]) if len(ages) else None), (sexes[0] if sexes else None)


def open_hearts(
    model: LoadedModel,
    cohort: str | Path | None = None,
    gallery: str | Path | None = None,
    n_simulated: int = N_SIMULATED,
    progress: Progress | None = None,
) -> Hearts:
    """Open a cohort and its gallery; simulate hearts where the user names no cohort.

    Simulated hearts and their gallery are kept in the cache folder (ECGCMR_CACHE) and opened the next time. Of a
    user's cohort nothing is written: without `gallery` its studies are embedded at each start.

    Args:
        model: The model; one without a CMR encoder has no gallery.
        cohort: Folder of a cohort; None simulates.
        gallery: Folder that `ecgcmr gallery build` made of that cohort.
        n_simulated: Subjects to simulate.
        progress: Called with (done, all) while simulating.

    Raises:
        FileNotFoundError, ValueError: As `Cohort.open`, `Gallery.load` and `build_gallery`; or the gallery is of
            another cohort, or comes without its cohort.
    """
    if cohort is None:
        if gallery is not None:
            raise ValueError(f"{gallery}: a gallery needs the cohort that it was made of: give it with --cohort")
        return _simulated(model, n_simulated, progress)
    opened = Cohort.open(cohort)
    if gallery is not None:
        found = Gallery.load(gallery, model)
        if found.about.cohort_key != cohort_key(opened):
            raise ValueError(
                f"{gallery}: made of the cohort {found.about.cohort!r}, whose subjects are not those of {cohort}"
            )
        return Hearts(opened, found)
    return Hearts(opened, build_gallery(model, opened, part="all") if _comparable(model, opened) else None)


def _simulated(model: LoadedModel, n: int, progress: Progress | None) -> Hearts:
    cache = cache_folder().parent / "app"
    folder = cache / f"simulated-{n}"
    if not folder.is_dir():
        simulate_cohort(folder, n, SEED, cine="mid3", progress=progress)
    cohort = Cohort.open(folder)
    if not _comparable(model, cohort):
        return Hearts(cohort, None)
    place = cache / f"gallery-{n}-{model.config['sha256'][:16]}"
    try:
        gallery = Gallery.load(place, model)
        if gallery.about.cohort_key == cohort_key(cohort):
            return Hearts(cohort, gallery)
    except (FileNotFoundError, ValueError):  # none yet, or broken: it is made of what is here and made again
        pass
    gallery = build_gallery(model, cohort, part="all")
    gallery.save(place)
    return Hearts(cohort, gallery)


def _comparable(model: LoadedModel, cohort: Cohort) -> bool:
    """Whether the model places studies and ECGs in one space, and the cohort has studies."""
    modules = set(model.config["modules"])
    return {"cmr", "cmr_projection", "ecg_projection"} <= modules and len(cohort.studies) > 0
