#!/usr/bin/env bash
# The main job through qgis_process on a simulated scene: fine-tune, map, assess. Leaves map, report and a PNG in demo/.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh

demo=$PWD/demo
rm -rf "$demo"
mkdir -p "$demo"
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT
export QT_QPA_PLATFORM=offscreen QGIS_PLUGINPATH=$PWD QGIS_CUSTOM_CONFIG_PATH=$profile
export RSFUSION_PYTHON=${RSFUSION_PYTHON:-$PWD/.venv/bin/python}

# Debian's wrapper of QGIS 3.22 passes an option that the program refuses.
qgis_process=$(command -v qgis_process.bin || command -v qgis_process)
run() { "$qgis_process" run "$@"; }

"$qgis_process" plugins enable rsfusion_plugin >/dev/null
scene=$demo/scene
run rsfusion:samplescene -- SIZE="${SIZE:-500}" SEED=0 OUTPUT="$scene"
rasters=(OPTICAL="$scene/sentinel2_l2a.tif" SAR="$scene/sentinel1_vv_vh.tif" ELEVATION="$scene/surface_model.tif")
run rsfusion:finetune -- "${rasters[@]}" LABELS="$scene/labels.gpkg" CLASS_FIELD=class \
  OUTPUT_MODEL="$demo/model.safetensors" REPORT="$demo/training_report.html"
run rsfusion:landcovermap -- "${rasters[@]}" MODEL="$demo/model.safetensors" \
  OUTPUT="$demo/map.tif" CONFIDENCE="$demo/confidence.tif"
run rsfusion:accuracy -- MAP="$demo/map.tif" REFERENCE="$scene/labels_reference.gpkg" CLASS_FIELD=class \
  REPORT="$demo/accuracy_report.html"
"$RSFUSION_PYTHON" scripts/picture.py "$scene/sentinel2_l2a.tif" "$demo/map.tif" "$demo/confidence.tif" "$demo/map.png"
echo "Look at demo/map.png, demo/training_report.html and demo/accuracy_report.html; open demo/map.tif in QGIS."
