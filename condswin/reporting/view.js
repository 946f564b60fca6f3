"use strict";
// Volumes over each other by niivue: slice, plane, window and level, opacity of each segmentation.

(async () => {
  const data = JSON.parse(document.querySelector("#data").textContent);
  const viewer = document.querySelector("#volumes");
  const canvas = document.querySelector("#canvas");
  const output = viewer.querySelector("output");
  const control = (name) => viewer.querySelector(`[name=${name}]`);
  if (!document.createElement("canvas").getContext("webgl2")) {
    output.textContent = "This browser has no WebGL 2, which draws the volumes.";
    return;
  }
  const viewed = new niivue.Niivue({
    backColor: [0, 0, 0, 1], show3Dcrosshair: false, crosshairWidth: 0, loadingText: "", logLevel: "silent",
    isRadiologicalConvention: true, isNearestInterpolation: true, dragAndDropEnabled: false, sliceMM: false,
  });
  await viewed.attachToCanvas(canvas);
  const volumes = [];
  for (const layer of data.layers) {
    const image = layer.labels.length === 0;
    const volume = await niivue.NVImage.loadFromBase64({ base64: layer.data, name: `${layer.name}.nii.gz`, colormap: "gray",
      opacity: layer.opacity, ...(image ? { cal_min: data.window[0], cal_max: data.window[1] } : {}) });
    if (!image) {
      const of = (part) => [0, ...layer.labels.map((label) => label.rgb[part])];
      volume.setColormapLabel({ R: of(0), G: of(1), B: of(2), A: [0, ...layer.labels.map(() => 255)],
        I: [0, ...layer.labels.map((label) => label.value)], labels: ["", ...layer.labels.map((label) => label.name)] });
    }
    volumes.push(volume);
    if (image || layer.opacity > 0 || volumes.length === 1) viewed.addVolume(volume);
  }

  const PLANES = { AXIAL: 2, CORONAL: 1, SAGITTAL: 0, MULTIPLANAR: 2 };
  const axis = () => PLANES[control("plane").value];
  const slices = () => viewed.volumes[0].dimsRAS[axis() + 1];
  const tell = () => {
    const number = Number(control("slice").value) + 1;
    control("slice").setAttribute("aria-valuetext", `slice ${number} of ${slices()}`);
    const ends = control("level") ? `, ${viewed.volumes[0].cal_min} to ${viewed.volumes[0].cal_max} ${data.unit}` : "";
    output.textContent = `slice ${number} of ${slices()}${ends}`;
  };
  const move = () => {
    viewed.scene.crosshairPos[axis()] = (Number(control("slice").value) + 0.5) / slices();
    viewed.drawScene();
    tell();
  };
  const window_ = (low, high) => {
    viewed.volumes[0].cal_min = low;
    viewed.volumes[0].cal_max = high;
    viewed.updateGLVolume();
    tell();
  };
  const turn = () => {
    viewed.setSliceType(niivue.SLICE_TYPE[control("plane").value]);
    control("slice").max = slices() - 1;
    control("slice").value = Math.floor(viewed.scene.crosshairPos[axis()] * slices());
    tell();
  };
  const edges = () => viewed.setAtlasOutline(control("outlines").checked ? 1 : 0);

  control("slice").addEventListener("input", move);
  control("plane").addEventListener("change", turn);
  control("outlines").addEventListener("change", edges);
  for (const name of ["level", "width"]) {
    control(name)?.addEventListener("input", () => {
      const [level, width] = [Number(control("level").value), Number(control("width").value)];
      control("preset").value = "";
      window_(level - width / 2, level + width / 2);
    });
  }
  control("preset")?.addEventListener("change", (event) => {
    const [low, high] = event.target.value ? event.target.value.split(" ").map(Number) : data.window;
    control("level").value = (low + high) / 2;
    control("width").value = high - low;
    window_(low, high);
  });
  for (const opacity of viewer.querySelectorAll("[name=opacity]")) {
    const volume = volumes[data.layers.findIndex((layer) => layer.name === opacity.dataset.layer)];
    opacity.addEventListener("input", () => {
      const place = viewed.volumes.indexOf(volume);
      volume.opacity = Number(opacity.value);
      // Niivue draws the outlines of its first overlay even where that is transparent.
      if (volume.opacity === 0 && place > 0) viewed.removeVolume(volume);
      else if (place < 0) viewed.addVolume(volume);
      else viewed.setOpacity(place, volume.opacity);
    });
  }
  // Niivue's own keys do other things.
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    control("slice").value = Number(control("slice").value) + step;
    move();
  }, true);
  viewed.onLocationChange = () => {
    control("slice").value = Math.floor(viewed.scene.crosshairPos[axis()] * slices());
    tell();
  };
  edges();
  turn();
})().catch((error) => { document.querySelector("#volumes output").textContent = `The volumes cannot be drawn: ${error.message}`; });
