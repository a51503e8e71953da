"""What is shipped and generated says what the models say."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
import yaml

from vcluster.spec import ClusterSpec, schema_json
from vcluster.spec_docs import reference, sections, write

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
LINE = "# yaml-language-server: $schema=../vcluster/schema.json\n"


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA+cMUjwyKSdrRS2OZuaCwOSzyKtJEOXcHGKOlK2HI/O me\n"


@pytest.fixture(autouse=True)
def somebody_with_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id_ed25519.pub").write_text(KEY)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json.loads(schema_json())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_shipped_schema_is_true() -> None:
    shipped = resources.files("vcluster").joinpath("schema.json").read_text(encoding="utf-8")
    assert shipped == schema_json(), "run: python -m vcluster.spec_docs"


def test_committed_reference_is_true() -> None:
    committed = (ROOT / "docs/reference/spec.md").read_text(encoding="utf-8")
    assert committed == reference(), "run: python -m vcluster.spec_docs"


def test_write_makes_both(tmp_path: Path) -> None:
    (tmp_path / "vcluster").mkdir()
    write(tmp_path)
    assert (tmp_path / "docs/reference/spec.md").read_text(encoding="utf-8") == reference()
    assert (tmp_path / "vcluster/schema.json").read_text(encoding="utf-8") == schema_json()


def test_every_field_is_described_and_in_the_reference() -> None:
    page = reference()
    for place, model in sections():
        for name, info in model.model_fields.items():
            assert info.description, f"{place}.{name}"
            assert f"| `{name}` |" in page
        assert not place or f"`{place}`" in page
    assert "$schema" in page


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_examples_fit_the_schema(file: Path, validator: jsonschema.Draft202012Validator) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.startswith(LINE)
    # The schema of an editor sees what its YAML reader makes of a file; YAML 1.1 differs in times without quotes only.
    validator.validate(yaml.safe_load(text.replace("2-00:00:00", "'2-00:00:00'")))
    assert ClusterSpec.load(file).name


def test_the_canonical_form_fits_the_schema(validator: jsonschema.Draft202012Validator) -> None:
    for file in EXAMPLES:
        validator.validate(ClusterSpec.load(file).canonical())


@pytest.mark.parametrize(
    "more",
    [
        {"name": "Demo"},
        {"name": None},
        {"cloud": ""},
        {"scheduler": "pbs"},
        {"nmae": "x"},
        {"workers": 3},
        {"workers": [{"count": -1}]},
        {"workers": [{"count": "2"}]},
        {"workers": [{"flavor": {"cpus": 1}}]},
        {"head": {"flavor": {"cpus": 0, "memory": "1G"}}},
        {"head": {"flavor": {"cpus": 1, "memory": "2GB"}}},
        {"users": [{"sudo": True}]},
        {"packages": ["-y"]},
        {"slurm": {"max_time": "long"}},
        {"mirrors": {"apt": "ftp://example.org"}},
        {"image": {"sha256": "abc"}},
        {"image": 5},
        {"expires": 8},
        {"expires": "8 hours"},
        {"access": {"jump": "bastion"}},
        {"access": {"floating_ip": "new"}},
        {"network": ""},
        {"head": {"root_disk": "big"}},
        {"prices": [{"per_hour": 1}]},
        {"jupyterhub": {"people": {"count": -1}}},
        {"jupyterhub": {"auth": {"method": "password"}}},
        {"jupyterhub": {"auth": {"password": "hunter2"}}},
        {"jupyterhub": {"auth": {"options": {"issuer": 1}}}},
        {"jupyterhub": {"profiles": [{"memory": "2GB"}]}},
        {"jupyterhub": {"idle": {"server": "soon"}}},
        {"jupyterhub": {"domain": "https://hub.example.org"}},
    ],
    ids=str,
)
def test_bad_specs_do_not_fit_the_schema(more: dict[str, object], validator: jsonschema.Draft202012Validator) -> None:
    assert not validator.is_valid({"name": "demo", "cloud": "local", **more})


def test_the_forms_of_an_image_fit(validator: jsonschema.Draft202012Validator) -> None:
    for image in (
        "./x.qcow2",
        {"url": "https://example.org/x", "sha256": "a" * 64},
        {"path": "x.img"},
        {"source": "x"},
    ):
        validator.validate({"name": "demo", "cloud": "local", "image": image})
