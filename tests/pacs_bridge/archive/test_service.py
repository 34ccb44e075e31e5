"""An archive run whose work a running service does: real processes, real associations."""

from __future__ import annotations

import json

import numpy as np
from click.testing import CliRunner
from pydicom import dcmread

from dicom_seg.synthetic.acquisition import stack
from dicom_seg.synthetic.options import SeriesOptions
from dicom_seg.synthetic.series import write_ct_series
from inference.volume import Volume
from pacs_bridge.cli.main import main
from pacs_bridge.demo_archive import AE_TITLE


def test_the_workers_of_a_service_run_a_plan_and_its_results_reach_the_pacs(
    archive, tree, ram_folder, make_config, tiny_models, serving
):
    hu = np.full((10, 16, 16), -1000, dtype=np.int16)
    hu[3:9, 4:12, 4:12] = 700
    volume = Volume(hu, stack(hu.shape, (3.0, 4.0, 3.0)))
    for number in range(2):
        write_ct_series(volume, tree.root / str(number), SeriesOptions(seed=number + 1))
    folder, port = archive
    config = make_config(
        models=f"{{ folder = {json.dumps(str(tiny_models))} }}",
        workers='{ devices = ["cpu"] }',
        destinations=f'[{{ name = "pacs", ae_title = "{AE_TITLE}", host = "127.0.0.1",'
        f' port = {port}, kinds = ["labelmap"] }}]',
        routes='[{ name = "all", model = "tiny", destinations = ["pacs"] }]',
        sources=f'[{{ name = "old", kind = "plan", folder = "{ram_folder}/run" }}]',
    )
    call = CliRunner().invoke
    run = ["--run", str(ram_folder / "run"), "--quiet"]
    planned = call(main, ["archive", "plan", *run, str(tree.root), "--processes", "1"])
    assert planned.exit_code == 0

    with serving(ram_folder / "bridge.toml"):
        done = call(
            main, ["archive", "run", *run, "--config", str(ram_folder / "bridge.toml"), "--json"]
        )

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["outcomes"][0] | {"source_bytes": 0} == {
        "state": "done", "reason": "", "series": 2, "source_bytes": 0,
    }  # fmt: skip
    results = [dcmread(path) for path in folder.rglob("*") if path.is_file()]
    assert len(results) == 2
    referenced = {ds.ReferencedSeriesSequence[0].SeriesInstanceUID for ds in results}
    sources = [dcmread(next((tree.root / str(number)).iterdir())) for number in range(2)]
    assert referenced == {ds.SeriesInstanceUID for ds in sources}
    audited = call(main, ["audit", "--config", str(ram_folder / "bridge.toml")])
    assert audited.exit_code == 0, audited.output
    assert config.data_folder.exists()
