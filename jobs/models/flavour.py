"""The files beside a model that let MLflow's own client open it: `mlflow.lightgbm.load_model("models:/ctr@champion")`.

Source: MLflow "MLmodel" format, flavour `lightgbm`.
"""

from __future__ import annotations

from importlib import metadata

_PACKAGES = ("lightgbm", "numpy")


def flavour_files(run_id: str, model_file: str) -> dict[str, bytes]:
    """File name to content: the model's description and the exact packages that it needs."""
    requirements = "".join(f"{package}=={metadata.version(package)}\n" for package in _PACKAGES)
    described = f"""artifact_path: .
flavors:
  lightgbm:
    code: null
    data: {model_file}
    lgb_version: {metadata.version("lightgbm")}
    model_class: lightgbm.basic.Booster
  python_function:
    data: {model_file}
    env:
      virtualenv: python_env.yaml
    loader_module: mlflow.lightgbm
    python_version: 3.11
run_id: {run_id}
"""
    environment = "python: '3.11'\ndependencies:\n- -r requirements.txt\n"
    return {
        "MLmodel": described.encode(),
        "requirements.txt": requirements.encode(),
        "python_env.yaml": environment.encode(),
    }
