"""An archive run whose series a real PACS is asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from pydicom import dcmread

from dicom_seg.synthetic.acquisition import stack
from dicom_seg.synthetic.options import SeriesOptions
from dicom_seg.synthetic.series import write_ct_series
from inference.volume import Volume


@pytest.mark.pacs
def test_listed_series_are_found_fetched_and_segmented_and_the_others_are_coded(
    dcmqrscp, ram_folder, make_config, tiny_models
):
    hu = np.full((10, 16, 16), -1000, dtype=np.int16)
    hu[3:9, 4:12, 4:12] = 700
    volume = Volume(hu, stack(hu.shape, (3.0, 4.0, 3.0)))
    uids = []
    for number in range(2):
        folder = ram_folder / f"ct{number}"
        paths = write_ct_series(volume, folder, SeriesOptions(seed=4711 + number))
        dcmqrscp.put(paths)
        uids.append(str(dcmread(paths[0]).SeriesInstanceUID))
    (ram_folder / "list.csv").write_text("\n".join(["SeriesInstanceUID", *uids, "1.2.3.404"]))
    make_config(
        sources='[{ name = "pacs", kind = "dimse", ae_title = "QRSCP", host = "127.0.0.1",'
        f" port = {dcmqrscp.port} }}]",
    )
    environment = {**os.environ, "PACS_BRIDGE_MODELS": str(tiny_models)}

    def archive(*words: str) -> dict[str, dict[str, int]]:
        command = [sys.executable, "-m", "pacs_bridge", "archive", *words, "--run", "run", "--json"]
        done = subprocess.run(
            command, cwd=ram_folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        outcomes = json.loads(done.stdout)["outcomes"]
        return {row["reason"] or row["state"]: row["series"] for row in outcomes}

    source = ("--config", "bridge.toml", "--source", "pacs")
    planned = archive("plan", *source, "--manifest", "list.csv")
    assert planned == {"planned": 2, "source-missing": 1}
    ran = ("run", "--config", "bridge.toml", "--out", "out", "--model", "tiny")
    assert archive(*ran, "--kind", "labelmap") == {"done": 2, "source-missing": 1}

    reports = [json.loads(path.read_text()) for path in ram_folder.glob("out/??/*/report.json")]
    assert {report["series"]["series_instance_uid"] for report in reports} == set(uids)
    assert all(report["timings_s"]["fetch"] > 0 for report in reports)
